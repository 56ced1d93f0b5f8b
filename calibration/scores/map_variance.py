"""How much attention maps change from step to step. It needs nothing but the calibration."""

from __future__ import annotations

from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.score_table import Granularity, ScoreTable
from f3prune.calibration.scores._registry import Measurement, Score, register


def map_variance(calibration: Calibration, granularity: Granularity) -> ScoreTable:
    """Squared distance of frame mass from its mean over timesteps, per timestep; means over a layer's heads.

    What changes from prompt to prompt, or from place to place, is not in it: calibration keeps means over both.
    """
    values = {}
    for name, mass in calibration.mass.items():
        maps = mass.double()
        heads = (maps - maps.mean(0)).square().sum((2, 3))
        values[name] = heads if granularity == "head" else heads.mean(1)
    return ScoreTable(granularity, calibration.timesteps, values)


@register("map-variance")
class MapVariance(Score):
    """What ``static`` loses by keeping the mean map."""

    title = "change of attention maps over timesteps"
    granularities = ("layer", "head")

    def measure(self, measurement: Measurement) -> ScoreTable:
        """See ``map_variance``."""
        return map_variance(measurement.calibration, measurement.config.granularity)
