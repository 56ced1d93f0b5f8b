"""Load a network that a user names. TorchScript is code: a file runs with the user's rights, so none is ever found by
itself or downloaded. Imports no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from f3prune.core.errors import InputError


def load_torchscript(path: Path, what: str) -> Any:
    """The module of a TorchScript file, on the CPU, in evaluation mode.

    The file is a program. Give only one whose source you trust, as with any program.

    Args:
        path: of the file.
        what: what the network is for, for messages.

    Raises:
        InputError: no such file, or it is not TorchScript (weights alone, a pickle, ONNX).
    """
    if not path.is_file():
        raise InputError(f"{what}: there is no file {path}: give the path of a TorchScript file")
    import torch

    try:
        with warnings.catch_warnings():
            # PyTorch points to torch.export, but the published networks exist as TorchScript only.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, EOFError) as error:
        raise InputError(
            f"{what}: {path} is not a TorchScript file: give one that torch.jit.save wrote, not weights alone"
        ) from error


def accepts(module: Any, option: str) -> bool:
    """Whether the module's ``forward`` has a parameter of that name."""
    return any(argument.name == option for argument in module.forward.schema.arguments)


def call(compute: Callable[[], Any], path: Path, what: str, shape: tuple[int, ...]) -> Any:
    """What ``compute`` returns, a tensor, without gradients.

    Raises:
        InputError: the network fails on its input of ``shape``, or returns no tensor.
    """
    import torch

    try:
        with torch.inference_mode():
            found = compute()
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        raise InputError(
            f"{what}: {path} fails on an input of shape {shape} ({last}): give a network for it"
        ) from error
    if not isinstance(found, torch.Tensor):
        raise InputError(f"{what}: {path} returns a {type(found).__name__}: expected one tensor")
    return found
