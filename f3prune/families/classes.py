"""The classes of denoisers, by the name that a ``config.json`` gives them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from f3prune.core.errors import InputError
from f3prune.families import family_of

if TYPE_CHECKING:
    from torch import nn


def own_models() -> Any:
    """The models that no library has."""
    return importlib.import_module("f3prune.models")


def denoiser_class(name: str) -> Any:
    """The class of a denoiser by the name in its ``config.json``.

    Raises:
        UnknownFamilyError: no family has this class.
        InputError: the installed diffusers has no such class.
    """
    import diffusers

    family_of(name)
    found = getattr(diffusers, name, None) or getattr(own_models(), name, None)
    if found is None:
        raise InputError(f"diffusers {diffusers.__version__} has no class {name}: install a version that does")
    return found


def kept_in_fp32(denoiser: nn.Module) -> tuple[str, ...]:
    """Parts of weights' names that the class keeps in float32 in whatever dtype it is loaded."""
    return tuple(getattr(denoiser, "_keep_in_fp32_modules", None) or ())
