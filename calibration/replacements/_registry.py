"""One interface for everything that can take a pruned unit's place, and where they are found by name."""

from __future__ import annotations

import dataclasses
import importlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import nn

from f3prune.calibration.attention_hook import AttentionCall, Handler
from f3prune.calibration.bake.attention import ReplacedHeads
from f3prune.calibration.bake.surgery import take_gates, take_output_heads, take_query_key_heads, take_value_heads
from f3prune.core.choices import shipped_modes
from f3prune.core.errors import InputError
from f3prune.core.json_values import OneOfMany, fields_as_json, from_fields
from f3prune.families import Family, Layout, Site, TokenGrid

if TYPE_CHECKING:
    from f3prune.calibration.masks import SiteMask


@dataclass(frozen=True)
class Place:
    """A site whose pruned units are to be replaced in the weights.

    Attributes:
        denoiser: the dense denoiser, which is rewritten.
        family: its family.
        site: the site.
        mask: what goes.
    """

    denoiser: nn.Module
    family: Family
    site: Site
    mask: SiteMask

    @property
    def kept(self) -> tuple[int, ...]:
        """Heads that stay as they are, ascending."""
        return tuple(head for head in range(self.site.heads) if head not in self.mask.pruned_heads)

    @property
    def module(self) -> Any:
        """The site's attention module."""
        return self.denoiser.get_submodule(self.site.name)

    @property
    def computes_own_heads(self) -> bool:
        """The site's module attends frame-locally by itself (``local_heads``)."""
        return self.site.layout == "sparse-causal" or self.family.autoregressive

    def reorder(self, order: tuple[int, ...], query_key: bool = True) -> None:
        """Put heads in this order in the weights; those left out are gone."""
        if query_key:
            take_query_key_heads(self.denoiser, self.site, order)
        take_value_heads(self.denoiser, self.site, order)
        take_gates(self.denoiser, self.site, order)
        take_output_heads(self.denoiser, self.site, order)


@dataclass(frozen=True)
class Replacement(OneOfMany):
    """What takes the place of pruned units at one site; its fields are its options.

    A subclass in a module of this package is found by the module's name; ``register`` adds one from elsewhere. A
    subclass says what its heads compute at an attention call (``attend``), and the same once more, by other means and
    at any price, for tests (``reference``). That is enough for spatiotemporal sites; ``bake`` is overridden where
    weights change.

    Attributes:
        title: what a query of a replaced head attends to, in words, for reports.
        layouts: token layouts of the sites it has a meaning for.
        granularities: units that it can take the place of.
        autoregressive: it works in models that generate token by token.
        offered: what mode ``auto`` tries of it, with options.
        compared: what sweeps and contests try of it unless they are told, with options.
        fits: a refit fits the replacement itself, too, by ``statistics`` and ``fitted``.
    """

    title: ClassVar[str]
    layouts: ClassVar[tuple[Layout, ...]]
    granularities: ClassVar[tuple[str, ...]] = ("layer", "head")
    autoregressive: ClassVar[bool] = False
    offered: ClassVar[tuple[str, ...]] = ()
    compared: ClassVar[tuple[str, ...]] = ()
    fits: ClassVar[bool] = False

    @abstractmethod
    def attend(self, call: AttentionCall) -> torch.Tensor:
        """Attention of replaced heads.

        Args:
            call: of the replaced heads alone, all of them, in ascending order.

        Returns:
            ``b h n d``.

        Raises:
            InputError: the call's size does not suit.
        """

    @abstractmethod
    def reference(self, call: AttentionCall) -> torch.Tensor:
        """What ``attend`` gives, computed densely: what tests compare with."""

    def bake(self, place: Place) -> Handler | None:
        """Rewrite the weights of a site; gives the handler of its attention at run time, if it needs one."""
        kept, movable = place.kept, place.family.qk_heads_interchangeable
        if not kept:
            return ReplacedHeads(0, self.attend)
        order = (*kept, *place.mask.pruned_heads)
        place.reorder(order, query_key=movable)
        return ReplacedHeads(len(kept), self.attend, None if movable else order)

    def whole_site(self, denoiser: nn.Module, family: Family, site: Site) -> AbstractContextManager[None] | None:
        """For the reference: do to the dense denoiser what replacing *every* head of a site does to more than its
        attention (its bias, say). ``None`` where it does nothing more.
        """
        del denoiser, family, site
        return None

    def for_site(self, mass: torch.Tensor, heads: tuple[int, ...]) -> Replacement:
        """The replacement for the pruned heads of one site.

        Args:
            mass: frame mass of the site, mean over the timesteps at hand: ``h f (f+1)``.
            heads: the pruned ones, ascending.
        """
        del mass, heads
        return self

    def statistics(self, call: AttentionCall) -> tuple[torch.Tensor, ...]:
        """Sums over one call of the dense model, of the replaced heads alone, float64; they are added up over calls."""
        raise NotImplementedError

    def fitted(self, sums: tuple[torch.Tensor, ...]) -> Replacement:
        """The replacement that comes closest to dense attention, by the sums of ``statistics``."""
        raise NotImplementedError

    def refusal(self, layout: Layout, family: Family, frames: int, grid: TokenGrid | None) -> str | None:
        """Why it cannot stand at such a site, or ``None``.

        Args:
            layout: of the site.
            family: of the denoiser.
            frames: F.
            grid: of the video tokens, where it is known.
        """
        del frames, grid
        if family.autoregressive and not self.autoregressive:
            return f"mode {name_of(self)} does not work in {family.title}, which generates token by token"
        if layout not in self.layouts:
            return f"mode {name_of(self)} is for {' and '.join(self.layouts)} attention, not {layout}"
        return None

    @property
    def spec(self) -> str:
        """The mode with all its options, as ``replacement_of`` reads it: ``pooled:4:0``."""
        options = [str(getattr(self, field.name)) for field in dataclasses.fields(self) if not is_fitted(field)]
        return ":".join([name_of(self), *options])

    def to_json(self) -> dict[str, Any]:
        """``mode`` and the options, as JSON values."""
        return {"mode": name_of(self), **fields_as_json(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Replacement:
        """Inverse of ``to_json``, of any replacement."""
        options = dict(values)
        return from_fields(_kind(options.pop("mode")), options)


_REGISTRY: dict[str, type[Replacement]] = {}
Kind = TypeVar("Kind", bound=type[Replacement])


def register(name: str) -> Callable[[Kind], Kind]:
    """Add a replacement under a name, as a decorator of its class.

    Raises:
        InputError: another class has that name.
    """

    def add(kind: Kind) -> Kind:
        if name in _REGISTRY and _REGISTRY[name].__qualname__ != kind.__qualname__:
            raise InputError(f"there is a mode {name} already: choose another name")
        _REGISTRY[name] = kind
        return kind

    return add


def mode_names() -> tuple[str, ...]:
    """All modes: those of this package, then those registered from elsewhere."""
    shipped = shipped_modes()
    return (*shipped, *(name for name in _REGISTRY if name not in shipped))


def replacement_of(mode: str, **options: int | None) -> Replacement:
    """The replacement of that name.

    Args:
        mode: its name; options may follow behind colons, whole numbers in the order of its fields: ``pooled:4:1``.
        options: of the replacement by name, in place of those behind colons; ``None`` says nothing.

    Raises:
        InputError: there is none of that name, or it has no such option.

    Examples:
        >>> replacement_of("pooled:2:1")
        Pooled(pool=2, window=1)
        >>> replacement_of("pooled", window=1).spec
        'pooled:4:1'
    """
    name, *written = mode.split(":")
    kind = _kind(name)
    known = [field.name for field in dataclasses.fields(kind) if not is_fitted(field)]
    if len(written) > len(known) or not all(value.isdecimal() for value in written):
        form = ":".join([name, *(option.upper() for option in known)])
        raise InputError(f"`mode` is {mode!r}, expected {form}, with whole numbers")
    given = dict(zip(known, map(int, written), strict=False))
    for option, value in options.items():
        if value is not None:
            if option not in known:
                raise InputError(f"mode {name} has no option {option}: leave {option} out, or choose another mode")
            given[option] = value
    return kind(**given)


def is_fitted(field: dataclasses.Field[Any]) -> bool:
    """Whether a field is measured at a site, and no option."""
    return "fitted" in field.metadata


def name_of(replacement: Replacement) -> str:
    """The name that a replacement's class is registered under.

    Raises:
        InputError: it is not registered.
    """
    for name, kind in _REGISTRY.items():
        if kind is type(replacement):
            return name
    raise InputError(f"{type(replacement).__name__} is no mode: decorate the class with register(name)")


def _kind(mode: str) -> type[Replacement]:
    if mode not in _REGISTRY and mode in shipped_modes():
        importlib.import_module(f"f3prune.calibration.replacements.{mode.replace('-', '_')}")
    if mode not in _REGISTRY:
        raise InputError(f"`mode` is {mode!r}, expected one of {', '.join(mode_names())}")
    return _REGISTRY[mode]
