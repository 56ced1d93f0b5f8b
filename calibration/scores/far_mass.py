"""Attention to frames that a window would cut off. It needs nothing but the calibration."""

from __future__ import annotations

import torch

from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.replacements import replacement_of
from f3prune.calibration.score_table import Granularity, ScoreTable
from f3prune.calibration.scores._registry import Measurement, Score, register

NEXT = 1
"""Window of a mode that has none."""


def far_mass(calibration: Calibration, granularity: Granularity, window: int) -> ScoreTable:
    """Attention paid to frames more than ``window`` away, per timestep; means over a layer's heads."""
    values = {}
    for name, mass in calibration.mass.items():
        frames = torch.arange(mass.shape[-2])
        far = (frames[:, None] - frames).abs() > window
        heads = (mass[..., :-1].double() * far).sum((2, 3))
        values[name] = heads if granularity == "head" else heads.mean(1)
    return ScoreTable(granularity, calibration.timesteps, values)


@register("far-mass")
class FarMass(Score):
    """What a window loses; of modes without one, beyond the frames next to one's own."""

    title = "attention to far frames"
    granularities = ("layer", "head")

    def measure(self, measurement: Measurement) -> ScoreTable:
        """See ``far_mass``."""
        config = measurement.config
        window = getattr(replacement_of(config.mode), "window", NEXT)
        return far_mass(measurement.calibration, config.granularity, window)
