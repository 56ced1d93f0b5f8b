"""Greedy: leave one out again after every unit that went, because what is left must make up for all that is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.masks import Mode
from f3prune.calibration.score_table import Aggregate, Granularity, ScoreTable, Unit
from f3prune.calibration.scores._output_error import Calls, OutputError
from f3prune.calibration.unit_masks import every_unit, filled


def greedy(
    denoiser: nn.Module,
    calibration: Calibration,
    calls: Calls,
    granularity: Granularity,
    mode: Mode,
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
        mode: what takes a unit's place.
        aggregate: whether a unit is the same head or pair of all sites.
        candidates: names of the sites that may be pruned.
        stages: ``(highest, lowest)`` timestep of every stage; each has an order of its own.
        on_trial: called after every trial, ``count_trials`` times at most.

    Returns:
        Places in the order, from 0; sites that are no candidates have the last one.

    Raises:
        InputError: the dense output is zero or not finite, or units cannot be aggregated so.
    """
    error = OutputError(denoiser, calibration, calls, granularity, mode)
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
