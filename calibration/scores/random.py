"""Selection with no knowledge, to compare with."""

from __future__ import annotations

import torch

from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.score_table import Granularity, ScoreTable
from f3prune.calibration.scores._registry import Measurement, Score, register
from f3prune.calibration.scores.aas import attention_scores


def random_scores(calibration: Calibration, granularity: Granularity, seed: int) -> ScoreTable:
    """Uniform numbers that are the same at all timesteps: selection with no knowledge."""
    draw = torch.Generator("cpu").manual_seed(seed)
    values = {
        name: torch.rand(value.shape[1:], generator=draw, dtype=torch.float64)[None]
        for name, value in attention_scores(calibration, granularity).values.items()
    }
    return ScoreTable(granularity, calibration.timesteps[:1], values)


@register("random")
class RandomScore(Score):
    """Seeded numbers."""

    title = "random score"

    def measure(self, measurement: Measurement) -> ScoreTable:
        """See ``random_scores``."""
        config = measurement.config
        return random_scores(measurement.calibration, config.granularity, config.score_seed)
