"""One interface for every measure that units are ranked by, and where they are found by name."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.score_table import Granularity, ScoreTable
from f3prune.core.choices import GRANULARITIES, score_names
from f3prune.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from f3prune.calibration.selection import PruneConfig

Calls = list[tuple[float, Mapping[str, Any]]]
"""Timestep and forward arguments of recorded calls of the denoiser."""
Task = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Shows how far a measurement is: what is done and of how many steps; gives what to call after each."""


@dataclass(frozen=True)
class Measurement:
    """What a score may look at.

    Attributes:
        calibration: of the model.
        config: what is to be pruned, and how.
        denoiser: gives the dense denoiser, loaded when first asked for.
        calls: gives recorded calls of it.
        task: shows progress.
    """

    calibration: Calibration
    config: PruneConfig
    denoiser: Callable[[], nn.Module]
    calls: Callable[[], Calls]
    task: Task


class Score(ABC):
    """A measure of what a unit is worth. The least goes first.

    A subclass in a module of this package is found by the module's name; ``register`` adds one from elsewhere.

    Attributes:
        title: the measure in words, for reports.
        needs_model: it runs or reads the denoiser; without, the calibration is enough and nothing is kept on disk.
        granularities: units that it can rank.
    """

    title: ClassVar[str]
    needs_model: ClassVar[bool] = False
    granularities: ClassVar[tuple[str, ...]] = GRANULARITIES

    @abstractmethod
    def measure(self, measurement: Measurement) -> ScoreTable:
        """The scores of every unit.

        Raises:
            InputError: the model or the calibration does not allow it.
        """

    def depends_on(self, config: PruneConfig) -> dict[str, Any]:
        """Options, beside the unit, that other scores would follow from; JSON values."""
        del config
        return {}

    def refusal(self, granularity: Granularity) -> str | None:
        """Why it cannot rank these units, or None."""
        if granularity in self.granularities:
            return None
        return f"score {name_of(self)} ranks {' and '.join(self.granularities)}s only, not {granularity}s"


_REGISTRY: dict[str, Score] = {}
Kind = TypeVar("Kind", bound=type[Score])


def register(name: str) -> Callable[[Kind], Kind]:
    """Add a score under a name, as a decorator of its class.

    Raises:
        InputError: another class has that name.
    """

    def add(kind: Kind) -> Kind:
        if name in _REGISTRY and type(_REGISTRY[name]).__qualname__ != kind.__qualname__:
            raise InputError(f"there is a score {name} already: choose another name")
        _REGISTRY[name] = kind()
        return kind

    return add


def names() -> tuple[str, ...]:
    """All scores: those of this package, then those registered from elsewhere."""
    shipped = score_names()
    return (*shipped, *(name for name in _REGISTRY if name not in shipped))


def score_of(name: str) -> Score:
    """The score of that name.

    Raises:
        InputError: there is none.
    """
    if name not in _REGISTRY and name in score_names():
        importlib.import_module(f"f3prune.calibration.scores.{name.replace('-', '_')}")
    if name not in _REGISTRY:
        raise InputError(f"`score` is {name!r}, expected one of {', '.join(names())}")
    return _REGISTRY[name]


def name_of(score: Score) -> str:
    """The name that a score's class is registered under.

    Raises:
        InputError: it is not registered.
    """
    for name, known in _REGISTRY.items():
        if type(known) is type(score):
            return name
    raise InputError(f"{type(score).__name__} is no score: decorate the class with register(name)")
