"""Aggregate Attention Score: from frame mass to one number per part (arXiv 2312.03459, section 3.2)."""

from __future__ import annotations

import torch

from f3prune.calibration.calibration_file import Calibration


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
