"""Aggregate Attention Score: from frame mass to one number per prunable unit (DESIGN §2, arXiv 2312.03459)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from calibration.calibration_file import Calibration
from f3prune.errors import InputError

Granularity = Literal["layer", "head", "frame-pair"]
Aggregate = Literal["timesteps", "layers"]


@dataclass(frozen=True)
class Unit:
    """A prunable unit and its score.

    ``sites`` has one name, or all of them when scores are aggregated over layers. ``head`` or ``pair`` (query frame i,
    key frame j) says which part of each site; both ``None`` means the whole site.
    """

    sites: tuple[str, ...]
    score: float
    head: int | None = None
    pair: tuple[int, int] | None = None


def cross_frame(mass: torch.Tensor) -> torch.Tensor:
    """The part of frame mass between different frames: ``… f (f+1) -> … f f`` with a zero diagonal."""
    frames = mass.shape[-2]
    return mass[..., :frames].double() * (1 - torch.eye(frames, dtype=torch.float64))


def head_scores(calibration: Calibration, steps: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
    """AAS of every head of every site, summed over timesteps ``steps[0]`` to ``steps[1] - 1``: site → ``h`` float64."""
    start, stop = steps or (0, len(calibration.timesteps))
    return {name: cross_frame(m[start:stop]).sum((0, 2, 3)) for name, m in calibration.mass.items()}


def pair_scores(calibration: Calibration, steps: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
    """AAS of every pair of frames of every site, averaged over heads: site → ``f f`` float64."""
    start, stop = steps or (0, len(calibration.timesteps))
    return {name: cross_frame(m[start:stop]).mean(1).sum(0) for name, m in calibration.mass.items()}


def units(
    calibration: Calibration,
    granularity: Granularity,
    aggregate: Aggregate,
    candidates: Sequence[str],
    steps: tuple[int, int] | None = None,
) -> list[Unit]:
    """All prunable units of the candidate sites, in site order.

    Raises:
        InputError: aggregation over layers was asked for whole layers, or over sites of different shapes.
    """
    if granularity == "layer":
        if aggregate == "layers":
            raise InputError(
                "aggregate layers sums scores over sites, which leaves nothing to rank at granularity layer: "
                "use --granularity head or frame-pair, or --aggregate timesteps"
            )
        return [
            Unit((name,), float(s.mean())) for name, s in head_scores(calibration, steps).items() if name in candidates
        ]
    scores = (head_scores if granularity == "head" else pair_scores)(calibration, steps)
    scores = {name: s for name, s in scores.items() if name in candidates}
    if aggregate == "timesteps":
        return [unit for name, s in scores.items() for unit in _split((name,), s)]
    shapes = {tuple(s.shape) for s in scores.values()}
    if len(shapes) > 1:
        raise InputError(
            f"aggregate layers needs sites of one shape, this model has {sorted(shapes)} "
            f"({'heads' if granularity == 'head' else 'frames'} per site): use --aggregate timesteps"
        )
    return list(_split(tuple(scores), torch.stack(list(scores.values())).sum(0))) if scores else []


def _split(sites: tuple[str, ...], scores: torch.Tensor) -> list[Unit]:
    """One unit per head of ``h`` scores, or per ordered pair of different frames of ``f f`` scores."""
    if scores.ndim == 1:
        return [Unit(sites, float(s), head=h) for h, s in enumerate(scores)]
    frames = scores.shape[0]
    return [Unit(sites, float(scores[i, j]), pair=(i, j)) for i in range(frames) for j in range(frames) if i != j]
