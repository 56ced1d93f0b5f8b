"""The original denoiser without its weights: what pipelines ask a denoiser about besides running it."""

from __future__ import annotations

import importlib
import re
import sys
import typing
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import BaseOutput
from torch import nn

from f3prune.core.errors import ArtifactError
from f3prune.core.json_values import parse_json
from f3prune.core.places import read_regular

# Where denoiser classes live; the second holds those that no library has.
_LIBRARIES = ("diffusers", "f3prune.models")


def load_skeleton(directory: Path | str) -> nn.Module:
    """The denoiser that ``directory/config.json`` describes, on the meta device.

    Raises:
        ArtifactError: there is no such file, or it names a class that nothing here has.
    """
    path = Path(directory) / "config.json"
    try:
        config: dict[str, Any] = parse_json(read_regular(path))
        name = str(config["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"no denoiser configuration in {path}: expected a diffusers config.json") from error
    denoiser_class = _find_class(name)
    if denoiser_class is None:
        raise ArtifactError(f"{path} names the class {name}, which neither diffusers nor f3prune has")
    with torch.device("meta"):
        skeleton: nn.Module = denoiser_class.from_config(config)
    # A few modules make tensors of their own accord; they go too.
    return skeleton.to("meta").eval()


def _find_class(name: str) -> Any:
    for library in _LIBRARIES:
        try:
            found = getattr(importlib.import_module(library), name, None)
        except ModuleNotFoundError:
            continue
        if found is not None:
            return found
    return None


def output_class_of(denoiser_class: type) -> Any:
    """The class that the denoiser's forward returns when ``return_dict`` is true.

    Raises:
        ArtifactError: its forward neither says so nor is there one output class with a ``sample`` in its module.
    """
    forward: Any = denoiser_class.forward  # type: ignore[attr-defined]
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    module = vars(sys.modules[denoiser_class.__module__])
    annotation = forward.__annotations__.get("return")
    if isinstance(annotation, str):
        said = [module.get(word) for word in re.findall(r"\w+", annotation)]
    else:
        said = [annotation, *typing.get_args(annotation)]
    declared = [item for item in said if _is_output(item)]
    # Some forwards say only "Tensor" but build one of the output classes that their module imports.
    named = [module[name] for name in forward.__code__.co_names if _is_output(module.get(name))]
    for candidate in (*declared, *named):
        return candidate
    raise ArtifactError(
        f"{denoiser_class.__name__}.forward does not say what it returns: expected a class with a sample"
    )


def _is_output(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, BaseOutput) and "sample" in item.__annotations__
