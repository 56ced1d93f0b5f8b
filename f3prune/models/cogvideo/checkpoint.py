"""Published checkpoint files: pickles, of which nothing but tensors and plain values is unpickled."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from f3prune.core.errors import InputError

_KEY = "module"


def read_checkpoint(file: Path) -> dict[str, torch.Tensor]:
    """The tensors under ``module`` by their published names, mapped from ``file``; nothing else is unpickled.

    Raises:
        InputError: the file is missing, damaged, holds more than tensors and plain values, or has no ``module``.
    """
    if not file.is_file():
        raise InputError(
            f"{file} {'is a directory' if file.is_dir() else 'does not exist'}: give the checkpoint's file"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"{file} holds more than plain tensors{f' ({found[1]})' if found else ''}, and unpickling that could run "
            f"any code: expected a checkpoint with a state dict of tensors under {_KEY!r}; ask its makers for one"
        ) from error
    except Exception as error:  # a damaged archive or pickle can raise anything
        if "mmap can only be used" in str(error):
            raise InputError(
                f"{file} is not in PyTorch's zip format, it is damaged or older than 1.6: download it again, or load "
                f"it where it is trusted and save it again"
            ) from error
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise InputError(f"{file} cannot be read as a PyTorch checkpoint ({reason}): download it again") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{file} holds a {type(content).__name__}, expected a dict with the key {_KEY!r}")
    if _KEY not in content:
        keys = ", ".join(map(str, content)) or "none"
        raise InputError(f"{file} has no key {_KEY!r}, its keys are: {keys}: give mp_rank_00_model_states.pt")
    state = content[_KEY]
    if not isinstance(state, Mapping):
        raise InputError(f"{file}: {_KEY!r} is a {type(state).__name__}, expected a dict of tensors by name")
    wrong = [f"{name} ({_kind(value)})" for name, value in state.items() if not _usable(name, value)]
    if wrong:
        raise InputError(
            f"{file}: {_KEY!r} holds what is no dense floating-point tensor: {', '.join(wrong)}: expected only weights"
        )
    return dict(state)


def _usable(name: Any, value: Any) -> bool:
    if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
        return False
    return value.layout == torch.strided and value.device.type == "cpu" and value.is_floating_point()


def _kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{value.dtype}, {value.layout}, {value.device.type}".replace("torch.", "")
