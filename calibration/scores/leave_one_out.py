"""Leave one out: what the denoiser's output loses when one unit alone is pruned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.replacements import Replacement, replacement_of
from f3prune.calibration.score_table import Granularity, ScoreTable
from f3prune.calibration.scores._output_error import Calls, OutputError
from f3prune.calibration.scores._registry import Measurement, Score, register
from f3prune.calibration.unit_masks import every_unit, filled
from f3prune.families import registry

if TYPE_CHECKING:
    from f3prune.calibration.selection import PruneConfig


def leave_one_out(
    denoiser: nn.Module,
    calibration: Calibration,
    calls: Calls,
    granularity: Granularity,
    mode: str | Replacement,
    on_unit: Callable[[], None] = lambda: None,
) -> ScoreTable:
    """Squared relative error of the output, one unit pruned at a time, on recorded calls.

    A unit costs as many forward passes as there are calls: layers of a model about as much as one more generation.

    Args:
        denoiser: the dense denoiser; it is as it was when this returns.
        calibration: names the sites.
        calls: what to run; calls of one timestep are averaged.
        granularity: what a unit is.
        mode: what takes the unit's place: a replacement, or the name of one.
        on_unit: called after every unit.

    Raises:
        InputError: the dense output is zero or not finite, so that nothing can be compared with it.
    """
    replacement = replacement_of(mode) if isinstance(mode, str) else mode
    error = OutputError(denoiser, calibration, calls, granularity, replacement)
    table = filled(calibration, granularity, error.timesteps, 0.0)
    family = registry()[calibration.family]
    for unit in every_unit(calibration, granularity):
        # A model may have sites of several layouts, some of which a replacement cannot stand at.
        (name,) = unit.sites
        frames = calibration.mass[name].shape[-2]
        suits = replacement.refusal(calibration.sites[name].layout, family, frames, calibration.grid) is None
        table.put(unit, slice(None), error.without([unit]) if suits else math.inf)
        on_unit()
    return table


def count_units(calibration: Calibration, granularity: Granularity) -> int:
    """How many units ``leave_one_out`` prunes."""
    return len(every_unit(calibration, granularity))


@register("leave-one-out")
class LeaveOneOut(Score):
    """What the output loses without the unit."""

    title = "leave-one-out error"
    needs_model = True

    def measure(self, measurement: Measurement) -> ScoreTable:
        """See ``leave_one_out``."""
        found, config = measurement.calibration, measurement.config
        with measurement.task("leaving one out", count_units(found, config.granularity)) as advance:
            return leave_one_out(
                measurement.denoiser(), found, measurement.calls(), config.granularity, config.replacement, advance
            )

    def depends_on(self, config: PruneConfig) -> dict[str, Any]:
        """What takes the unit's place."""
        return config.replacement.to_json()
