"""``drop``: the unit's whole contribution goes, values and output projection too; the residual path carries on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from f3prune.calibration.attention_hook import AttentionCall, Handler
from f3prune.calibration.bake.attention import LeadingHeads
from f3prune.calibration.bake.modules import DroppedAttention, LeadingLinear, PaddedLinear, shrink
from f3prune.calibration.bake.surgery import linear, set_heads, take_output_heads, take_value_heads
from f3prune.calibration.replacements._registry import Place, Replacement, register
from f3prune.core.errors import InputError
from f3prune.families import Family, Layout, Site


@register("drop")
@dataclass(frozen=True)
class Drop(Replacement):
    """A CogVideo layer hands the temporal channel's share to the spatial one."""

    title: ClassVar[str] = "nothing: its contribution goes"
    offered: ClassVar[tuple[str, ...]] = ("drop",)
    compared: ClassVar[tuple[str, ...]] = ("drop",)
    layouts: ClassVar[tuple[Layout, ...]] = ("temporal", "spatiotemporal", "sparse-causal")
    autoregressive: ClassVar[bool] = True

    def attend(self, call: AttentionCall) -> torch.Tensor:
        """See ``Replacement``."""
        return torch.zeros_like(call.query)

    def reference(self, call: AttentionCall) -> torch.Tensor:
        """See ``Replacement``."""
        return call.dense() * 0.0

    def whole_site(self, denoiser: nn.Module, family: Family, site: Site) -> AbstractContextManager[None]:
        """The output's bias goes too."""
        if family.autoregressive:
            return _spatial_takes_all(denoiser.get_submodule(site.name.rpartition(".")[0]))
        return _zero_output(denoiser.get_submodule(site.name))

    def bake(self, place: Place) -> Handler | None:
        """See ``Replacement``."""
        denoiser, site, family, kept = place.denoiser, place.site, place.family, place.kept
        if not kept:
            _remove(place)
            return None
        if place.computes_own_heads:
            place.reorder(kept)
            set_heads(denoiser, site, len(kept))
            return None
        if family.qk_heads_interchangeable and not family.norm_across_heads:
            shrink(denoiser, site, kept)
            return None
        return _leave_query_key(place)


def _remove(place: Place) -> None:
    """Nothing of the site is left."""
    denoiser, site, family = place.denoiser, place.site, place.family
    if family.autoregressive:
        layer: Any = denoiser.get_submodule(site.name.rpartition(".")[0])
        layer.drop_temporal()
        return
    inside = [name.startswith(f"{site.name}.") for name, _ in site.outputs]
    if not all(inside):
        take_output_heads(denoiser, site, [])
    returns_text = family.returns_text and site.layout != "sparse-causal"
    denoiser.set_submodule(site.name, DroppedAttention(returns_text, no_channels=not all(inside)))


def _leave_query_key(place: Place) -> Handler:
    """Values and output go; queries and keys of all heads stay, normalised together or rotated head by head."""
    denoiser, site, kept = place.denoiser, place.site, place.kept
    movable = place.family.qk_heads_interchangeable
    order = (*kept, *place.mask.pruned_heads)
    place.reorder(order, query_key=movable)
    take_value_heads(denoiser, site, range(len(kept)))
    for name in site.value:
        missing = (site.heads - len(kept)) * site.head_dim
        denoiser.set_submodule(name, PaddedLinear(linear(denoiser, name), missing))
    take_output_heads(denoiser, site, range(len(kept)))
    for name, start in site.outputs:
        if start:
            raise InputError(f"site {site.name}: {name} reads heads from column {start} on, expected 0")
        layer = linear(denoiser, name)
        if layer.in_features != len(kept) * site.head_dim:
            raise InputError(f"site {site.name}: {name} reads more than the heads, which dropping does not support")
        denoiser.set_submodule(name, LeadingLinear(layer))
    return LeadingHeads(len(kept), None if movable else order)


@contextmanager
def _spatial_takes_all(layer: nn.Module) -> Iterator[None]:
    """CogVideo's mixing gate at 1: the temporal channel's share goes to the spatial one."""
    gate = layer.get_parameter("gate")
    layer.gate = nn.Parameter(torch.full_like(gate, torch.inf), requires_grad=False)
    try:
        yield
    finally:
        layer.gate = gate


@contextmanager
def _zero_output(module: nn.Module) -> Iterator[None]:
    handle = module.register_forward_hook(_zeros)
    try:
        yield
    finally:
        handle.remove()


def _zeros(module: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(None if o is None else torch.zeros_like(o) for o in output)
    return torch.zeros_like(output)
