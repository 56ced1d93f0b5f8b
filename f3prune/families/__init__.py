"""The supported model families: one declaration each, found by name or by the class of a denoiser.

Importing this package imports neither torch nor diffusers, so that listing the families is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from f3prune.core.errors import InputError, UnknownFamilyError
from f3prune.families import joint, temporal
from f3prune.families._base import AttentionNames, Family, LatentShape, Layout, Site, SiteKind, TokenGrid
from f3prune.families.unsupported import UNSUPPORTED, why_not

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "UNSUPPORTED",
    "AttentionNames",
    "Family",
    "LatentShape",
    "Layout",
    "Site",
    "SiteKind",
    "TokenGrid",
    "denoiser_component",
    "family_of",
    "known_family",
    "registry",
]


def registry() -> dict[str, Family]:
    """Every family by its command-line name, temporal layouts first."""
    return {family.name: family for family in (*temporal.FAMILIES, *joint.FAMILIES)}


def family_of(denoiser: nn.Module | str) -> Family:
    """The family of a denoiser, or of the class name that its ``config.json`` gives.

    Subclasses and ``torch.compile`` wrappers belong to the family of what they extend.

    Raises:
        UnknownFamilyError: no declaration names this class; says why where it is known.
    """
    if isinstance(denoiser, str):
        names = [denoiser]
    else:
        names = [cls.__name__ for cls in type(getattr(denoiser, "_orig_mod", denoiser)).__mro__]
    by_class = {family.denoiser_class: family for family in registry().values()}
    for name in names:
        if name in by_class:
            return by_class[name]
    known = next((name for name in names if name in UNSUPPORTED), names[0])
    raise UnknownFamilyError(why_not(known, sorted(by_class)))


def known_family(class_name: str) -> Family | None:
    """The family of a class, ``None`` for one without."""
    return next((family for family in registry().values() if family.denoiser_class == class_name), None)


def denoiser_component(pipeline: Any) -> Literal["transformer", "unet"]:
    """Which attribute of a diffusers pipeline holds its denoiser.

    Raises:
        InputError: the pipeline has neither.
    """
    for name in ("transformer", "unet"):
        if getattr(pipeline, name, None) is not None:
            return name  # type: ignore[return-value]
    raise InputError(
        f"{type(pipeline).__name__} has no transformer and no unet: expected a text-to-video or image-to-video "
        f"pipeline of diffusers"
    )
