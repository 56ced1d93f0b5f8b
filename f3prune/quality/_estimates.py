"""Numbers with intervals, and the draws of a bootstrap. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from f3prune.core.errors import InputError
from f3prune.quality.metrics._info import Better

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]
Verdict = Literal["better", "worse", "undecided"]
CONFIDENCE = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; None where one sample or none leaves no spread to see."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Difference(Estimate):
    """Pruned minus dense.

    Attributes:
        value, interval: of the difference.
        verdict: for pruned: "better" or "worse" where the interval leaves out 0, else "undecided".
    """

    verdict: Verdict


def draws(count: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """Bootstrap samples as indices ``resamples count``; equal arguments give equal draws, so sets stay paired.

    Raises:
        InputError: fewer than one resample or sample.
    """
    if resamples < 1 or count < 1:
        raise InputError(f"cannot draw {resamples} resamples of {count} samples: give at least one of each")
    return np.random.default_rng(seed).integers(count, size=(resamples, count))


def verdict(bounds: Interval | None, better: Better, samples: int, confidence: float = CONFIDENCE) -> Verdict:
    """What an interval of ``pruned - dense`` over so many pairs says of pruned.

    Few samples never decide: where even equal signs in all pairs have a probability ``2^(1 - n)`` above
    ``1 - confidence``, an interval is no evidence, since the bootstrap cannot see what it never drew.
    """
    if bounds is None or better is None or 2.0 ** (1 - samples) > 1.0 - confidence:
        return "undecided"
    low, high = bounds
    if low <= 0.0 <= high:
        return "undecided"
    return "better" if (low > 0.0) == (better == "higher") else "worse"


def percentiles(values: Array, confidence: float) -> Interval:
    """The middle ``confidence`` of ``values``.

    Raises:
        InputError: a confidence outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence {confidence} is not a probability: give one between 0 and 1, such as 0.95")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
