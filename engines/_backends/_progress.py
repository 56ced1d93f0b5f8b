"""TensorRT's nested build phases as one number that only grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTree:
    """Follows phases by name and reports ``(fraction of the whole, name of the innermost phase)``.

    A phase counts as its finished steps plus, for the step under way, the part of it that a child phase has done.
    """

    def __init__(self, report: Callable[[float, str], None]) -> None:
        """``report`` is called after every change with a fraction that never falls."""
        self._report = report
        self._phases: dict[str, _Phase] = {}
        self._highest = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase began."""
        self._phases[name] = _Phase(parent, max(steps, 1))
        self._tell(name)

    def step(self, name: str, step: int) -> None:
        """Step number ``step`` (from 0) of a phase is complete."""
        if name in self._phases:
            self._phases[name].done = step + 1
            self._tell(name)

    def finish(self, name: str) -> None:
        """A phase ended."""
        phase = self._phases.get(name)
        if phase is None:
            return
        phase.done = phase.steps
        self._tell(name)
        del self._phases[name]

    def _fraction(self, name: str) -> float:
        phase = self._phases[name]
        inner = max(
            (self._fraction(child) for child, other in self._phases.items() if other.parent == name), default=0.0
        )
        return min(1.0, (phase.done + (inner if phase.done < phase.steps else 0.0)) / phase.steps)

    def _tell(self, name: str) -> None:
        roots = [root for root, phase in self._phases.items() if phase.parent not in self._phases]
        self._highest = max(self._highest, *(self._fraction(root) for root in roots))
        self._report(self._highest, name)
