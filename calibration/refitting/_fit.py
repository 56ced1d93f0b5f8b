"""Output projections, fitted to what dense attention gives.

A replaced site gives ``Φ`` where dense attention gave ``O``. The least-squares map between them, ``O ≈ Φ (I + Δ)
+ c``, is folded into the output projection, so that the graph keeps its shape. ``Δ`` is pulled towards zero, that is
towards the model's own weights: pulled towards zero weights, it over-fits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from f3prune.calibration.attention_hook import AttentionCall, AttentionHook
from f3prune.calibration.bake.attention import take_heads
from f3prune.calibration.bake.surgery import linear
from f3prune.calibration.masks import Masks, SiteMask
from f3prune.calibration.reference import replaced_output
from f3prune.calibration.refitting._dropped import fit_dropped
from f3prune.calibration.refitting._equations import NothingToRefit, products, solved
from f3prune.calibration.refitting._refit import Refit
from f3prune.core.errors import InputError
from f3prune.families import Layout, Site, family_of

__all__ = ["RIDGE", "passes", "refit"]

RIDGE: Mapping[Layout, float] = {"temporal": 1e-2, "spatiotemporal": 0.1}
"""Strength of the pull, relative to the diagonal of ``ΦᵀΦ``."""


def refit(
    denoiser: nn.Module, masks: Masks, denoise: Callable[[], None], ridge: Mapping[Layout, float] = RIDGE
) -> tuple[Masks, Refit]:
    """Fit the output projections of replaced sites to what dense attention gives.

    Sums of products are kept per site and stage, two matrices ``(h d)²`` in float64; calls are not.

    Args:
        denoiser: the dense one.
        masks: what is to be pruned, and what takes its place.
        denoise: runs generations of the dense model, through a pipeline or alone; called ``passes(masks)`` times.
        ridge: pull towards the model's own weights, by layout.

    Returns:
        The masks, which name the refit by its digest and have fitted maps where ``static`` stands, and the refit: both
        go to ``prune_denoiser``.

    Raises:
        NothingToRefit: nothing is replaced that could be refitted.
        InputError: a unit or site that cannot be refitted (gated heads among them), or the calls are too few.
    """
    family = family_of(denoiser)
    _refuse(masks)
    touched = {name for stage in masks.stages for name, mask in stage.sites.items() if not mask.untouched}
    for site in family.find_sites(denoiser, "all"):
        if site.gates and site.name in touched:
            raise InputError(
                f"refit does not work at {site.name}, whose heads are scaled token by token before they are projected: "
                f"prune {family.title} without it"
            )
    if family.autoregressive:
        tensors = fit_dropped(denoiser, masks, denoise)
    else:
        if passes(masks) > 1:
            masks = _with_fitted_stand_ins(denoiser, masks, denoise)
        tensors = _fitted(denoiser, _watched(denoiser, masks, denoise, _NormalEquations), ridge)
    if not tensors:
        raise NothingToRefit("nothing is left of the attention at the pruned sites, so that there is nothing to refit")
    found = Refit(tensors)
    return replace(masks, refit=found.digest), found


def _fitted(
    denoiser: nn.Module, sums: Mapping[tuple[int, str], _NormalEquations], ridge: Mapping[Layout, float]
) -> dict[str, torch.Tensor]:
    tensors = {}
    for (stage, name), one in sums.items():
        # A constant has nowhere to go where the output projection has no bias.
        constant = linear(denoiser, one.site.outputs[0][0]).bias is not None
        gram, target = one.sums
        fitted = solved(gram, target, ridge[one.site.layout], name, constant)
        if fitted is not None:
            tensors[f"{stage}/{name}"] = fitted
    return tensors


def passes(masks: Masks) -> int:
    """How often ``refit`` calls ``denoise``: once more where stand-ins are fitted, before output projections are."""
    stand_ins = [mask.replacement for stage in masks.stages for mask in stage.sites.values()]
    return 1 + any(one is not None and one.fits for one in stand_ins)


def _with_fitted_stand_ins(denoiser: nn.Module, masks: Masks, denoise: Callable[[], None]) -> Masks:
    sums = _watched(denoiser, masks, denoise, _StandIn)
    stages = []
    for number, stage in enumerate(masks.stages):
        sites = dict(stage.sites)
        for name, mask in stage.sites.items():
            if not mask.untouched and mask.stand_in.fits:
                sites[name] = replace(mask, replacement=mask.stand_in.fitted(sums[number, name].sums))
        stages.append(replace(stage, sites=sites))
    return replace(masks, stages=tuple(stages))


def _refuse(masks: Masks) -> None:
    for stage in masks.stages:
        for name, mask in stage.sites.items():
            if mask.kept_pairs is not None:
                raise InputError("refit is for layers and heads: prune with `granularity='layer'` or `'head'`")
            if not mask.untouched and mask.layout == "sparse-causal":
                raise InputError(f"refit does not work at {name}, which sees frames 0 and i-1 alone: `protect` it")


class _Watcher(ABC):
    """Sums over the dense calls of one site at one stage."""

    def __init__(self, site: Site, mask: SiteMask) -> None:
        self.site, self.mask = site, mask
        self.sums: tuple[torch.Tensor, ...] = ()

    def add(self, call: AttentionCall, dense: torch.Tensor) -> None:
        """One call, and what dense attention gives for it: ``b h n d``."""
        found = self.of(call, dense)
        self.sums = tuple(a + b for a, b in zip(self.sums, found, strict=True)) if self.sums else found

    @abstractmethod
    def of(self, call: AttentionCall, dense: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What one call adds, float64."""


class _StandIn(_Watcher):
    def of(self, call: AttentionCall, dense: torch.Tensor) -> tuple[torch.Tensor, ...]:
        del dense
        if not self.mask.stand_in.fits:
            return ()
        return self.mask.stand_in.statistics(take_heads(call, list(self.mask.pruned_heads)))


class _NormalEquations(_Watcher):
    """``ΦᵀΦ`` and ``Φᵀ(O - Φ)``, with a column of ones in Φ."""

    def of(self, call: AttentionCall, dense: torch.Tensor) -> tuple[torch.Tensor, ...]:
        replaced = replaced_output(call, self.mask, self.mask.stand_in.attend)
        rows, lost = (self._rows(call, tensor) for tensor in (replaced, dense - replaced))
        return products(rows, lost)

    def _rows(self, call: AttentionCall, tensor: torch.Tensor) -> torch.Tensor:
        """``b h n d -> (b n) (h d)`` float32; text has a say only where it shares the output projection."""
        if len(self.site.outputs) > 1 and call.text_queries:
            tensor = tensor[:, :, call.video]
        return tensor.transpose(1, 2).flatten(2).flatten(0, 1).float()


Watcher = TypeVar("Watcher", bound=_Watcher)


def _watched(
    denoiser: nn.Module, masks: Masks, denoise: Callable[[], None], kind: type[Watcher]
) -> dict[tuple[int, str], Watcher]:
    """Stage and site → what was summed up while ``denoise`` ran the dense model.

    Raises:
        InputError: a stage was never called.
    """
    family = family_of(denoiser)
    touched = {(k, n): m for k, stage in enumerate(masks.stages) for n, m in stage.sites.items() if not m.untouched}
    names = {name for _, name in touched}
    sites = {site.name: site for site in family.find_sites(denoiser, "all") if site.name in names}
    watchers = {place: kind(sites[place[1]], mask) for place, mask in touched.items()}

    def watch(call: AttentionCall) -> torch.Tensor:
        dense = call.dense()
        watcher = watchers.get((masks.stage_of(hook.state.timestep or 0.0), call.site.name))
        if watcher is not None:
            watcher.add(call, dense)
        return dense

    hook = AttentionHook(denoiser, family, dict.fromkeys(sites, watch), sites, read_timestep=True)
    with hook, torch.no_grad():
        denoise()
    for (stage, _), watcher in watchers.items():
        if not watcher.sums and (kind is _NormalEquations or watcher.mask.stand_in.fits):
            raise InputError(f"refit saw no call of stage {stage}: run all steps of a generation")
    return watchers
