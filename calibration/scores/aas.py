"""The paper's score: attention that a unit pays to other frames. It needs nothing but the calibration."""

from __future__ import annotations

from f3prune.calibration.aas import cross_frame
from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.score_table import Granularity, ScoreTable
from f3prune.calibration.scores._registry import Measurement, Score, register


def attention_scores(calibration: Calibration, granularity: Granularity) -> ScoreTable:
    """Aggregate Attention Score (arXiv 2312.03459, section 3.2): attention paid to other frames, per timestep."""
    values = {}
    for name, mass in calibration.mass.items():
        cross = cross_frame(mass)
        if granularity == "layer":
            values[name] = cross.sum((2, 3)).mean(1)
        else:
            values[name] = cross.sum((2, 3)) if granularity == "head" else cross.mean(1)
    return ScoreTable(granularity, calibration.timesteps, values)


@register("aas")
class AttentionScore(Score):
    """Aggregate Attention Score."""

    title = "Aggregate Attention Score"

    def measure(self, measurement: Measurement) -> ScoreTable:
        """See ``attention_scores``."""
        return attention_scores(measurement.calibration, measurement.config.granularity)
