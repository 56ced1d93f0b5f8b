"""``local``: a query attends to its own frame and to text (F3-Pruning, arXiv 2312.03459, §3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from f3prune.calibration.attention_hook import AttentionCall, Handler
from f3prune.calibration.bake.attention import KeptPairs, frame_local
from f3prune.calibration.bake.modules import PartlyReplaced, shrink, value_output
from f3prune.calibration.replacements._masks import attend_where, frames_of
from f3prune.calibration.replacements._registry import Place, Replacement, register
from f3prune.core.choices import GRANULARITIES
from f3prune.families import Layout


@register("local")
@dataclass(frozen=True)
class Local(Replacement):
    """The softmax renormalises over what is left. A temporal site attends to one key then, and becomes linear."""

    title: ClassVar[str] = "its own frame and text"
    offered: ClassVar[tuple[str, ...]] = ("local",)
    compared: ClassVar[tuple[str, ...]] = ("local",)
    layouts: ClassVar[tuple[Layout, ...]] = ("temporal", "spatiotemporal", "sparse-causal")
    granularities: ClassVar[tuple[str, ...]] = GRANULARITIES
    autoregressive: ClassVar[bool] = True

    def attend(self, call: AttentionCall) -> torch.Tensor:
        """See ``Replacement``."""
        return frame_local(call)

    def reference(self, call: AttentionCall) -> torch.Tensor:
        """See ``Replacement``."""
        asks, answers = frames_of(call)
        return attend_where(call, (asks == answers) | (answers == call.frames))

    def bake(self, place: Place) -> Handler | None:
        """See ``Replacement``; the only one that takes frame pairs too."""
        pairs = place.mask.kept_pairs
        if pairs is not None and not (
            place.site.layout == "temporal" and all(keys == (i,) for i, keys in enumerate(pairs))
        ):
            return KeptPairs(pairs)
        if place.computes_own_heads:
            place.reorder((*place.kept, *place.mask.pruned_heads))
            place.module.local_heads = len(place.mask.pruned_heads)
            return None
        if place.site.layout == "temporal":
            _bake_temporal(place, place.kept if pairs is None else ())
            return None
        return super().bake(place)


def _bake_temporal(place: Place, kept: tuple[int, ...]) -> None:
    """Frame-local heads of a temporal site become linear maps."""
    denoiser, site = place.denoiser, place.site
    local = value_output(denoiser, site, [h for h in range(site.heads) if h not in kept], bias=not kept)
    if kept:
        shrink(denoiser, site, kept)
        denoiser.set_submodule(site.name, PartlyReplaced(place.module, local))
    else:
        denoiser.set_submodule(site.name, local)
