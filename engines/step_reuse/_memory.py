"""What a denoiser remembers of the steps before, so that it can skip some."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from f3prune.engines.step_reuse._plan import StepReuse

Output = TypeVar("Output", torch.Tensor, tuple[torch.Tensor, ...])
"""What a call gives: one tensor, or several."""
Lane = tuple[str, int]
"""Calls that belong to one another over the steps: the pipeline's name for them, and which call of the step it is."""


class StepMemory:
    """Runs or extrapolates one call after the other. A timestep that does not fall starts a new generation.

    Guidance in two calls a step has two lanes: by the name that the pipeline gives through ``cache_context``, or else
    by the order of calls at one timestep.
    """

    def __init__(self, plan: StepReuse) -> None:
        """Give the steps to skip."""
        self.plan = plan
        self._skipped = frozenset(plan.skipped)
        self._context = ""
        self.reset()

    def reset(self) -> None:
        """Forget the generation so far."""
        self._index = -1
        self._calls: dict[str, int] = {}
        self._outputs: dict[Lane, list[tuple[float, Any]]] = {}

    @contextlib.contextmanager
    def context(self, name: str) -> Iterator[None]:
        """Calls inside belong to the lanes of ``name``."""
        before, self._context = self._context, name
        try:
            yield
        finally:
            self._context = before

    def __call__(self, timestep: float, compute: Callable[[], Output]) -> Output:
        """The output at ``timestep``: ``compute``'s, or extrapolated, of the same shape and dtype.

        A lane that holds too little to extrapolate, as after a generation that was broken off, computes.

        Raises:
            InputError: the plan is for other timesteps.
        """
        index = self.plan.index_of(timestep)
        if index < self._index:
            self.reset()
        if index != self._index:
            self._index, self._calls = index, {}
        number = self._calls.get(self._context, 0)
        self._calls[self._context] = number + 1
        known = self._outputs.setdefault((self._context, number), [])
        if index in self._skipped and len(known) > self.plan.order:
            return extrapolate(known, self.plan.timesteps[index], self.plan.order)
        output = compute()
        known.append((self.plan.timesteps[index], output))
        del known[: -(self.plan.order + 1)]
        return output


def extrapolate(known: list[tuple[float, Output]], timestep: float, order: int) -> Output:
    """The last of ``known`` outputs, or the line through the last two, at ``timestep``."""
    last, output = known[-1]
    if isinstance(output, tuple):
        each = ([(at, outputs[k]) for at, outputs in known] for k in range(len(output)))
        return tuple(extrapolate(one, timestep, order) for one in each)
    if order == 0:
        return output.clone()
    earlier, before = known[-2]
    return torch.lerp(before, output, (timestep - earlier) / (last - earlier))
