"""Greedy: leave one out again after every unit that went, because what is left must make up for all that is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.replacements import Replacement, replacement_of
from f3prune.calibration.score_table import Aggregate, Granularity, ScoreTable, Unit
from f3prune.calibration.scores._output_error import Calls, OutputError
from f3prune.calibration.scores._registry import Measurement, Score, register
from f3prune.calibration.unit_masks import every_unit, filled

if TYPE_CHECKING:
    from f3prune.calibration.selection import PruneConfig


def greedy(
    denoiser: nn.Module,
    calibration: Calibration,
    calls: Calls,
    granularity: Granularity,
    mode: str | Replacement,
    aggregate: Aggregate,
    candidates: Sequence[str],
    stages: Sequence[tuple[float, float]],
    on_trial: Callable[[], None] = lambda: None,
) -> ScoreTable:
    """The order in which units go if each time the one goes without which the output's error is least.

    Greedy backward elimination. Its first choice is that of ``leave_one_out``; later ones see what went before.
    N units take N (N + 1) / 2 - 1 trials of as many forward passes as a stage has calls.

    Args:
        denoiser: the dense denoiser; it is as it was when this returns.
        calibration: names the sites.
        calls: what to run; calls of one timestep are averaged.
        granularity: what a unit is.
        mode: what takes a unit's place: a replacement, or the name of one.
        aggregate: whether a unit is the same head or pair of all sites.
        candidates: names of the sites that may be pruned.
        stages: ``(highest, lowest)`` timestep of every stage; each has an order of its own.
        on_trial: called after every trial, ``count_trials`` times at most.

    Returns:
        Places in the order, from 0; sites that are no candidates have the last one.

    Raises:
        InputError: the dense output is zero or not finite, or units cannot be aggregated so.
    """
    replacement = replacement_of(mode) if isinstance(mode, str) else mode
    error = OutputError(denoiser, calibration, calls, granularity, replacement)
    every = every_unit(calibration, granularity, aggregate, candidates)
    table = filled(calibration, granularity, error.timesteps, len(every))
    for highest, lowest in stages:
        rows = [row for row, timestep in enumerate(error.timesteps) if lowest <= timestep <= highest]
        # A stage in which nothing was recorded takes the order of the nearest recorded timestep: ScoreTable.total.
        if rows:
            order = _order(error, every, [error.timesteps[row] for row in rows], on_trial)
            for place, unit in enumerate(order):
                table.put(unit, rows, place)
    return table


def count_trials(
    calibration: Calibration, granularity: Granularity, aggregate: Aggregate, candidates: Sequence[str], stages: int
) -> int:
    """How many sets of units ``greedy`` tries if something was recorded in every stage."""
    count = len(every_unit(calibration, granularity, aggregate, candidates))
    return stages * max(count * (count + 1) // 2 - 1, 0)


@register("greedy")
class Greedy(Score):
    """Leave-one-out again after every unit that went."""

    title = "leave-one-out error, one after another"
    needs_model = True
    granularities = ("layer", "head")

    def measure(self, measurement: Measurement) -> ScoreTable:
        """See ``greedy``."""
        from f3prune.calibration.selection import stage_ranges, unprotected

        found, config = measurement.calibration, measurement.config
        candidates = unprotected(list(found.sites), config.protect)
        stages = [timesteps for _, timesteps in stage_ranges(found, config.stages)]
        trials = count_trials(found, config.granularity, config.aggregate, candidates, len(stages))
        with measurement.task("pruning one after another", trials) as advance:
            return greedy(
                measurement.denoiser(),
                found,
                measurement.calls(),
                config.granularity,
                config.replacement,
                config.aggregate,
                candidates,
                stages,
                advance,
            )

    def depends_on(self, config: PruneConfig) -> dict[str, Any]:
        """What goes first decides what goes next, so that everything that limits the choice belongs to the order."""
        return {
            **config.replacement.to_json(),
            "aggregate": config.aggregate,
            "stages": config.stages,
            "protect": list(config.protect),
        }

    def refusal(self, granularity: Granularity) -> str | None:
        """There are thousands of frame pairs."""
        if granularity != "frame-pair":
            return None
        return "frame pairs are too many to go one after another: use score leave-one-out or aas"


def _order(
    error: OutputError, every: Sequence[Unit], timesteps: Sequence[float], on_trial: Callable[[], None]
) -> list[Unit]:
    """All units, the first to go first; of equals the first in site order."""
    gone: list[Unit] = []
    left = list(every)
    while len(left) > 1:
        losses = []
        for unit in left:
            losses.append(float(error.without([*gone, unit], timesteps).sum()))
            on_trial()
        gone.append(left.pop(losses.index(min(losses))))
    return gone + left
