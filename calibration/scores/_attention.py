"""Scores that need nothing but the calibration: AAS, and the two it is compared with."""

from __future__ import annotations

import torch

from f3prune.calibration.aas import cross_frame
from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.score_table import Granularity, ScoreTable


def attention_scores(calibration: Calibration, granularity: Granularity) -> ScoreTable:
    """Aggregate Attention Score (arXiv 2312.03459, DESIGN §2): attention paid to other frames, per timestep."""
    values = {}
    for name, mass in calibration.mass.items():
        cross = cross_frame(mass)
        if granularity == "layer":
            values[name] = cross.sum((2, 3)).mean(1)
        else:
            values[name] = cross.sum((2, 3)) if granularity == "head" else cross.mean(1)
    return ScoreTable(granularity, calibration.timesteps, values)


def reversed_scores(calibration: Calibration, granularity: Granularity) -> ScoreTable:
    """AAS upside down: the units that attend most to other frames go first."""
    table = attention_scores(calibration, granularity)
    return ScoreTable(granularity, table.timesteps, {name: -value for name, value in table.values.items()})


def random_scores(calibration: Calibration, granularity: Granularity, seed: int) -> ScoreTable:
    """Uniform numbers that are the same at all timesteps: selection with no knowledge."""
    draw = torch.Generator("cpu").manual_seed(seed)
    values = {
        name: torch.rand(value.shape[1:], generator=draw, dtype=torch.float64)[None]
        for name, value in attention_scores(calibration, granularity).values.items()
    }
    return ScoreTable(granularity, calibration.timesteps[:1], values)
