"""Which steps to skip: the least predicted error for every number of them, and the best of a few by measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from f3prune.engines.step_reuse._memory import extrapolate
from f3prune.engines.step_reuse._plan import StepReuse
from f3prune.engines.step_reuse._recording import Recording

LONGEST = 3
"""Steps skipped in a row at most: a line through two outputs is trusted no further."""
GROWTHS = (1.0, 1.1, 1.2, 1.35)
"""Guesses of how much an error grows from step to step, because the denoiser answers to latents that are off."""

HOPELESS = 2.0
"""An order of extrapolation with so many times the predicted error of another is not tried."""


def candidates(recording: Recording, skips: int, orders: Sequence[int] = (1, 0)) -> list[StepReuse]:
    """For each guess of growth, the steps whose predicted errors sum up to the least; equal ones once.

    Exact, by dynamic programming over the last two computed steps; a skipped step's error does not depend on the
    steps before those.

    Args:
        recording: of a generation that skipped nothing.
        skips: steps to skip.
        orders: of extrapolation; one whose predicted error is ``HOPELESS`` times another's is left out.

    Returns:
        Plans, the order that promises most first; none where so many cannot be skipped.
    """
    errors: dict[tuple[int, int, int, int], float] = {}
    least = {order: _least(recording, skips, order, 1.0, errors) for order in orders}
    promised = {order: found[0] for order, found in least.items() if found is not None}
    found: dict[tuple[int, tuple[int, ...]], StepReuse] = {}
    for order in sorted(promised, key=lambda order: promised[order]):
        if promised[order] > HOPELESS * min(promised.values()):
            continue
        for growth in GROWTHS:
            best = _least(recording, skips, order, growth, errors)
            if best is not None:
                found.setdefault((order, best[1]), StepReuse(recording.timesteps, best[1], order))
    return list(found.values())


def choose(recording: Recording, skips: int, quality: Callable[[StepReuse], float]) -> tuple[StepReuse, float] | None:
    """The candidate whose generation is best.

    Args:
        recording, skips: see ``candidates``.
        quality: generates with a plan; higher is better.

    Returns:
        A plan and its quality; None where so many steps cannot be skipped.
    """
    tried = [(plan, quality(plan)) for plan in candidates(recording, skips)]
    return max(tried, key=lambda item: item[1], default=None)


def _least(
    recording: Recording, skips: int, order: int, growth: float, errors: dict[tuple[int, int, int, int], float]
) -> tuple[float, tuple[int, ...]] | None:
    """The least sum of errors, and the steps that have it; ``errors`` keeps what was computed."""
    steps = len(recording.timesteps)
    # (computed before last, last computed, number skipped) -> (sum of errors, steps skipped)
    states: dict[tuple[int, int, int], tuple[float, tuple[int, ...]]] = {(-1, 0, 0): (0.0, ())}
    for step in range(1, steps):
        reached: dict[tuple[int, int, int], tuple[float, tuple[int, ...]]] = {}

        def reach(state: tuple[int, int, int], cost: float, skipped: tuple[int, ...]) -> None:
            if state not in reached or cost < reached[state][0]:  # noqa: B023 - used in this turn of the loop only
                reached[state] = (cost, skipped)  # noqa: B023

        for (before, last, count), (cost, skipped) in states.items():
            reach((last, step, count), cost, skipped)
            able = step < steps - 1 and count < skips and step - last <= LONGEST and (order == 0 or before >= 0)
            if able:
                key = (before if order else -1, last, step, order)
                if key not in errors:
                    errors[key] = _error(recording, before, last, step, order)
                grown = errors[key] * growth ** (steps - 1 - step)
                reach((before, last, count + 1), cost + grown, (*skipped, step))
        states = reached
    return min((value for (_, _, count), value in states.items() if count == skips), default=None)


def _error(recording: Recording, before: int, last: int, step: int, order: int) -> float:
    """Length of what skipping ``step`` adds to the last latents, as far as the scheduler alone carries it."""
    known = [(recording.timesteps[index], recording.outputs[index]) for index in (before, last) if index >= 0]
    missed = extrapolate(known, recording.timesteps[step], order) - recording.outputs[step]
    return float(torch.linalg.vector_norm((recording.effects[step, :, None] * missed).sum(dim=0)))
