"""Which steps to skip: the least predicted error for every number of them, and the best of a few by measurement."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engines.step_reuse._memory import extrapolate
from engines.step_reuse._plan import StepReuse
from engines.step_reuse._recording import Recording

LONGEST = 3
"""Steps skipped in a row at most: a line through two outputs is trusted no further."""
GROWTHS = (1.0, 1.1, 1.2, 1.35)
"""Guesses of how much an error grows from step to step, because the denoiser answers to latents that are off."""


def candidates(recording: Recording, skips: int, order: int = 1) -> list[StepReuse]:
    """For each guess of growth, the steps whose predicted errors sum up to the least; equal ones once.

    Exact, by dynamic programming over the last two computed steps; a skipped step's error does not depend on the
    steps before those.

    Args:
        recording: of a generation that skipped nothing.
        skips: steps to skip.
        order: see ``StepReuse``.

    Returns:
        None to four plans; none where so many cannot be skipped.
    """
    found: dict[tuple[int, ...], StepReuse] = {}
    errors: dict[tuple[int, int, int], float] = {}
    for growth in GROWTHS:
        skipped = _least(recording, skips, order, growth, errors)
        if skipped is not None and skipped not in found:
            found[skipped] = StepReuse(recording.timesteps, skipped, order)
    return list(found.values())


def choose(
    recording: Recording, skips: int, quality: Callable[[StepReuse], float], order: int = 1
) -> tuple[StepReuse, float] | None:
    """The candidate whose generation is best.

    Args:
        recording, skips, order: see ``candidates``.
        quality: generates with a plan; higher is better.

    Returns:
        A plan and its quality; None where so many steps cannot be skipped.
    """
    tried = [(plan, quality(plan)) for plan in candidates(recording, skips, order)]
    return max(tried, key=lambda item: item[1], default=None)


def _least(
    recording: Recording, skips: int, order: int, growth: float, errors: dict[tuple[int, int, int], float]
) -> tuple[int, ...] | None:
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
                key = (before, last, step)
                if key not in errors:
                    errors[key] = _error(recording, before, last, step, order)
                grown = errors[key] * growth ** (steps - 1 - step)
                reach((before, last, count + 1), cost + grown, (*skipped, step))
        states = reached
    full = [value for (_, _, count), value in states.items() if count == skips]
    return min(full, default=(0.0, None))[1]


def _error(recording: Recording, before: int, last: int, step: int, order: int) -> float:
    """Length of what skipping ``step`` adds to the last latents, as far as the scheduler alone carries it."""
    known = [(recording.timesteps[index], recording.outputs[index]) for index in (before, last) if index >= 0]
    missed = extrapolate(known, recording.timesteps[step], order) - recording.outputs[step]
    return float(torch.linalg.vector_norm((recording.effects[step, :, None] * missed).sum(dim=0)))
