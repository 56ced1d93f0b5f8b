"""Refit: output projections that make up for what replaced attention lost, in closed form and free at run time.

A replaced site gives ``Φ`` where dense attention gave ``O``. The least-squares map between them, ``O ≈ Φ (I + Δ)
+ c``, is folded into the output projection, so that the graph keeps its shape. ``Δ`` is pulled towards zero, that is
towards the model's own weights: pulled towards zero weights, it over-fits.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from f3prune.calibration.attention_hook import AttentionCall, AttentionHook
from f3prune.calibration.bake.attention import take_heads
from f3prune.calibration.bake.surgery import linear, new_linear
from f3prune.calibration.masks import Masks, SiteMask
from f3prune.calibration.reference import replaced_output
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.weights.lazy_weights import LazyTensor
from f3prune.core.weights.safetensors_stream import save_streaming
from f3prune.families import Family, Layout, Site, family_of

FORMAT = "1"
RIDGE: Mapping[Layout, float] = {"temporal": 1e-2, "spatiotemporal": 0.1}
"""Strength of the pull, relative to the diagonal of ``ΦᵀΦ``."""


class NothingToRefit(InputError):
    """Whatever is pruned is gone, output projections too."""


@dataclass(frozen=True, eq=False)
class Refit:
    """What is folded into output projections.

    Attributes:
        tensors: ``stage/site`` → ``Δ`` with ``c`` as a last row, ``(h d + 1) (h d)`` float32.
    """

    tensors: Mapping[str, torch.Tensor]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, shapes and values."""
        found = hashlib.sha256()
        for name in sorted(self.tensors):
            found.update(f"{name} {tuple(self.tensors[name].shape)}\n".encode())
            found.update(self.tensors[name].contiguous().numpy().tobytes())
        return found.hexdigest()

    def layers(self, denoiser: nn.Module, site: Site, stage: int) -> Iterator[tuple[str, nn.Linear]]:
        """Output projections of a dense site as they are to be, by name; none where nothing was fitted.

        Lazy weights stay lazy.
        """
        fitted = self.tensors.get(f"{stage}/{site.name}")
        if fitted is None:
            return
        name, start = site.outputs[0]
        layer = linear(denoiser, name)
        weight, stop = layer.weight.detach(), start + site.heads * site.head_dim
        if fitted.shape != (stop - start + 1, stop - start):
            raise InputError(f"the refit of site {site.name} has shape {tuple(fitted.shape)}: it is of another model")
        delta, constant = (_beside(weight, tensor) for tensor in (fitted[:-1], fitted[-1]))
        middle = weight[:, start:stop].float()
        changed = (middle + middle @ delta.t()).to(weight.dtype)
        bias: torch.Tensor | None = None
        if layer.bias is not None:
            bias = (layer.bias.detach().float() + torch.mv(middle, constant)).to(weight.dtype)
        yield name, new_linear(torch.cat([weight[:, :start], changed, weight[:, stop:]], dim=1), bias)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        save_streaming(self.tensors, path, {"format": FORMAT, "digest": self.digest})

    @classmethod
    def load(cls, path: Path) -> Refit:
        """Read it back.

        Raises:
            ArtifactError: it is missing, damaged, or of another version.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                facts = file.metadata() or {}
                found = cls({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"cannot read {path} ({error}): run `prune(...)` again") from error
        if facts.get("format") != FORMAT or facts.get("digest") != found.digest:
            raise ArtifactError(f"{path} has another version, or was altered: run `prune(...)` again")
        return found


def _beside(weight: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where the weight is; lazy beside a lazy one, so that their product is put off."""
    if isinstance(weight, LazyTensor):
        return LazyTensor.of(tuple(tensor.shape), tensor.dtype, tensor.clone)
    return tensor.to(weight.device)


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
    _refuse(family, masks)
    touched = {name for stage in masks.stages for name, mask in stage.sites.items() if not mask.untouched}
    for site in family.find_sites(denoiser, "all"):
        if site.gates and site.name in touched:
            raise InputError(
                f"refit does not work at {site.name}, whose heads are scaled token by token before they are projected: "
                f"prune {family.title} without it"
            )
    if passes(masks) > 1:
        masks = _with_fitted_stand_ins(denoiser, masks, denoise)
    sums = _watched(denoiser, masks, denoise, _NormalEquations)
    tensors = {}
    for (stage, name), one in sums.items():
        # A constant has nowhere to go where the output projection has no bias.
        constant = linear(denoiser, one.site.outputs[0][0]).bias is not None
        fitted = one.solved(ridge[one.site.layout], constant)
        if fitted is not None:
            tensors[f"{stage}/{name}"] = fitted
    if not tensors:
        raise NothingToRefit("nothing is left of the attention at the pruned sites, so that there is nothing to refit")
    found = Refit(tensors)
    return replace(masks, refit=found.digest), found


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


def _refuse(family: Family, masks: Masks) -> None:
    if family.autoregressive:
        raise InputError(f"refit is for models that denoise, and {family.title} generates token by token")
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
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        return (rows.T @ rows).double(), (rows.T @ lost).double()

    def _rows(self, call: AttentionCall, tensor: torch.Tensor) -> torch.Tensor:
        """``b h n d -> (b n) (h d)`` float32; text has a say only where it shares the output projection."""
        if len(self.site.outputs) > 1 and call.text_queries:
            tensor = tensor[:, :, call.video]
        return tensor.transpose(1, 2).flatten(2).flatten(0, 1).float()

    def solved(self, ridge: float, constant: bool) -> torch.Tensor | None:
        """``Δ`` and ``c`` below it, on the CPU; ``None`` where nothing stands in the pruned heads' place.

        Args:
            ridge: see ``RIDGE``.
            constant: fit ``c`` too; it is zero otherwise.
        """
        gram, target = self.sums
        diagonal = gram.diagonal()
        used = diagonal > 0
        used[-1] = constant
        columns, rows = int(used[:-1].sum()), round(float(diagonal[-1]))
        if not columns:
            return None
        if rows < columns:
            raise InputError(
                f"refit saw {rows} tokens at site {self.site.name}, fewer than its {columns} channels: "
                f"give `refit` more generations"
            )
        pull = ridge * diagonal
        pull[-1] = 0.0
        solution = torch.zeros_like(target)
        solution[used] = torch.linalg.solve((gram + pull.diag())[used][:, used], target[used])
        return solution.float().cpu()


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
