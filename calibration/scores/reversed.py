"""AAS upside down, to compare with."""

from __future__ import annotations

from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.score_table import Granularity, ScoreTable
from f3prune.calibration.scores._registry import Measurement, Score, register
from f3prune.calibration.scores.aas import attention_scores


def reversed_scores(calibration: Calibration, granularity: Granularity) -> ScoreTable:
    """AAS upside down: the units that attend most to other frames go first."""
    table = attention_scores(calibration, granularity)
    return ScoreTable(granularity, table.timesteps, {name: -value for name, value in table.values.items()})


@register("reversed")
class ReversedScore(Score):
    """What attends most to other frames goes first."""

    title = "reversed Aggregate Attention Score"

    def measure(self, measurement: Measurement) -> ScoreTable:
        """See ``reversed_scores``."""
        return reversed_scores(measurement.calibration, measurement.config.granularity)
