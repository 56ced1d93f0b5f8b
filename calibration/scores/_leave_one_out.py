"""Leave one out: what the denoiser's output loses when one unit alone is pruned. The expensive, direct measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from calibration.bake.attention import KeptPairs, frame_local, heads_of
from calibration.calibration_file import Calibration
from calibration.masks import Masks, Mode, SiteMask, Stage
from calibration.reference import masked_reference
from calibration.score_table import Granularity, ScoreTable
from f3prune.errors import InputError
from f3prune.families import family_of
from f3prune.seam import AttentionCall

Calls = Sequence[tuple[float, Mapping[str, Any]]]
"""Timestep and forward arguments of recorded calls of the denoiser."""


def leave_one_out(
    denoiser: nn.Module,
    calibration: Calibration,
    calls: Calls,
    granularity: Granularity,
    mode: Mode,
    on_unit: Callable[[], None] = lambda: None,
) -> ScoreTable:
    """Squared relative error of the output, one unit pruned at a time, on recorded calls.

    A unit costs as many forward passes as there are calls: layers of a model about as much as one more generation.

    Args:
        denoiser: the dense denoiser; it is as it was when this returns.
        calibration: names the sites.
        calls: what to run; calls of one timestep are averaged.
        granularity: what a unit is.
        mode: what takes the unit's place.
        on_unit: called after every unit.

    Raises:
        InputError: the dense output is zero or not finite, so that nothing can be compared with it.
    """
    # A model that generates token by token leaves its last frame a token short, which frames cannot be cut out of.
    handler = None if family_of(denoiser).cached else _PrunedSite
    timesteps = tuple(dict.fromkeys(timestep for timestep, _ in calls))
    with torch.no_grad():
        references = [_output(denoiser, arguments) for _, arguments in calls]
        for (timestep, _), reference in zip(calls, references, strict=True):
            if not 0.0 < float(reference.square().sum()) < math.inf:
                raise InputError(
                    f"the denoiser's output at timestep {timestep:g} is zero or not finite: leave-one-out has nothing "
                    f"to compare with, so use --score aas"
                )
        values = {}
        for name, info in calibration.sites.items():
            frames = calibration.mass[name].shape[-2]
            shape = {"layer": (), "head": (info.heads,), "frame-pair": (frames, frames)}[granularity]
            scores = torch.zeros(len(timesteps), *shape, dtype=torch.float64)
            for index, masks in _one_at_a_time(calibration, name, granularity, mode):
                with masked_reference(denoiser, masks, handler=handler):
                    for (timestep, arguments), reference in zip(calls, references, strict=True):
                        error = (_output(denoiser, arguments) - reference).square().sum() / reference.square().sum()
                        same = sum(other == timestep for other, _ in calls)
                        scores[(timesteps.index(timestep), *index)] += float(error) / same
                on_unit()
            values[name] = scores
    return ScoreTable(granularity, timesteps, values)


@dataclass(frozen=True)
class _PrunedSite:
    """Attention of a site without the masked unit, by the same computation that a baked model uses: no whole mask."""

    mask: SiteMask
    mode: Mode

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        if self.mask.kept_pairs is not None:
            return KeptPairs(self.mask.kept_pairs)(call)
        if len(self.mask.pruned_heads) == self.mask.heads:
            return frame_local(call)
        output = call.dense().clone()
        for head in self.mask.pruned_heads:
            place = slice(head, head + 1)
            output[:, place] = 0.0 if self.mode == "drop" else frame_local(heads_of(call, head, head + 1))
        return output


def count_units(calibration: Calibration, granularity: Granularity) -> int:
    """How many units ``leave_one_out`` prunes."""
    if granularity == "layer":
        return len(calibration.sites)
    if granularity == "head":
        return sum(info.heads for info in calibration.sites.values())
    return sum(mass.shape[-2] * (mass.shape[-2] - 1) for mass in calibration.mass.values())


def _output(denoiser: nn.Module, arguments: Mapping[str, Any]) -> torch.Tensor:
    output = denoiser(**arguments)
    tensor = output if torch.is_tensor(output) else output[0]
    return tensor.double()


def _one_at_a_time(
    calibration: Calibration, name: str, granularity: Granularity, mode: Mode
) -> Iterator[tuple[tuple[int, ...], Masks]]:
    """Masks that prune one unit of one site, with the unit's place in the site's scores."""
    heads, frames = calibration.sites[name].heads, calibration.mass[name].shape[-2]
    every = tuple(range(frames))
    if granularity == "layer":
        yield (), _masks(calibration, name, granularity, mode, tuple(range(heads)), None)
    elif granularity == "head":
        for head in range(heads):
            yield (head,), _masks(calibration, name, granularity, mode, (head,), None)
    else:
        for i in range(frames):
            for j in range(frames):
                if i != j:
                    kept = tuple(tuple(k for k in every if (row, k) != (i, j)) for row in every)
                    yield (i, j), _masks(calibration, name, granularity, mode, (), kept)


def _masks(
    calibration: Calibration,
    name: str,
    granularity: Granularity,
    mode: Mode,
    pruned_heads: tuple[int, ...],
    kept_pairs: tuple[tuple[int, ...], ...] | None,
) -> Masks:
    info = calibration.sites[name]
    scores = (0.0,) * info.heads
    frames = calibration.mass[name].shape[-2]
    site = SiteMask(info.layout, frames, info.heads, scores, pruned_heads, kept_pairs)
    timesteps = calibration.timesteps
    stage = Stage((0, len(timesteps)), (max(timesteps), min(timesteps)), {name: site})
    return Masks(calibration.family, 0.0, granularity, "timesteps", mode, (stage,))
