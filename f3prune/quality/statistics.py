"""How sure a mean, a difference or a distance is: bootstrap over samples, and an exact paired test.

One sample is one video, however many frames it has: frames of a video are not independent. Imports no torch.
"""

from __future__ import annotations

import numpy as np

from f3prune.core.errors import InputError
from f3prune.quality._estimates import (
    CONFIDENCE,
    RESAMPLES,
    Array,
    Difference,
    Estimate,
    Interval,
    Verdict,
    draws,
    percentiles,
    verdict,
)
from f3prune.quality.metrics._frechet import distance_to, gaussian_of, root_of
from f3prune.quality.metrics._info import Better

__all__ = [
    "CONFIDENCE",
    "RESAMPLES",
    "Difference",
    "Estimate",
    "Interval",
    "Verdict",
    "difference",
    "estimate",
    "frechet_difference",
    "interval",
    "paired_test",
    "verdict",
]


def interval(
    values: Array, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap interval of the mean of ``values`` (``n``, float64); None for fewer than two.

    NaN stands for a sample without a value and is left out.

    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.

    Raises:
        InputError: a confidence outside (0, 1), or no resample.
    """
    present = values[~np.isnan(values)]
    if len(present) < 2:
        return None
    return percentiles(present[draws(len(present), resamples, seed)].mean(axis=1), confidence)


def estimate(values: Array, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean of ``values`` (``n``, NaN left out) with its ``interval``.

    Raises:
        InputError: no sample has a value.
    """
    if np.isnan(values).all():
        raise InputError(f"none of {len(values)} samples has a value: expected at least one")
    return Estimate(float(np.nanmean(values)), interval(values, confidence, resamples, seed))


def difference(
    dense: Array,
    pruned: Array,
    better: Better,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Mean of ``pruned - dense`` over samples (both ``n``, of the same prompts and seeds in one order).

    Pairs are resampled as pairs. A pair that lacks a value on either side (NaN) is left out.

    Raises:
        InputError: lengths differ, or no pair has both values.
    """
    if dense.shape != pruned.shape:
        raise InputError(f"cannot pair {len(dense)} dense with {len(pruned)} pruned samples: measure the same prompts")
    change = pruned - dense
    found = estimate(change, confidence, resamples, seed)
    pairs = int((~np.isnan(change)).sum())
    return Difference(found.value, found.interval, verdict(found.interval, better, pairs, confidence))


def paired_test(dense: Array, pruned: Array) -> float:
    """Two-sided p of the sign-flip permutation test on the mean of ``pruned - dense`` (both ``n``; NaN left out).

    Exact for up to 13 pairs, which have fewer than 10 000 sign patterns; beyond, of 9 999 drawn ones.

    Source:
        Fisher's randomisation test, by ``scipy.stats.permutation_test`` with ``permutation_type="samples"``.

    Raises:
        InputError: lengths differ, or no pair has both values.
    """
    if dense.shape != pruned.shape:
        raise InputError(f"cannot pair {len(dense)} dense with {len(pruned)} pruned samples: measure the same prompts")
    from scipy.stats import permutation_test

    change = (pruned - dense)[~np.isnan(pruned - dense)]
    if len(change) == 0:
        raise InputError(f"none of {len(dense)} pairs has both values: expected at least one")
    if not change.any():
        return 1.0
    found = permutation_test(
        (change,), np.mean, permutation_type="samples", vectorized=True, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def frechet_difference(
    dense: Array,
    pruned: Array,
    real: Array,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Estimate, Estimate, Difference]:
    """Fréchet distances of two sets of videos to the same real ones, and pruned minus dense.

    Videos are resampled, each with all its rows, the same ones in both sets; the real set stays as it is, since both
    distances share it. A resample repeats videos, so its covariance looks narrower and the distance larger than that
    of the set itself. All intervals are therefore moved by the mean of the resamples minus the value: they show the
    spread at this number of samples, and not the upward bias which the values themselves have at it. The difference
    is taken in each resample, where both sets have nearly the same bias.

    One resample takes two eigenvalue problems of width d: on one core, a thousand resamples take less than a second at
    d = 64, half a minute at d = 400 (I3D), an hour at d = 2048 (Inception), where fewer resamples are advisable.

    Args:
        dense, pruned: ``n r d``, float64: n videos, r rows each (1 for a video network, frames for an image network).
        real: ``m r d``; m need not be n.

    Raises:
        InputError: too few rows for the width, dense and pruned of different shapes, or another network's features.
    """
    if dense.shape != pruned.shape or dense.ndim != 3:
        raise InputError(f"dense features {dense.shape}, pruned {pruned.shape}: expected n r d of the same prompts")
    if real.ndim != 3 or real.shape[2] != dense.shape[2]:
        raise InputError(f"features of real videos {real.shape}, of dense {dense.shape}: use one network for both")
    target_mean, target_cov = gaussian_of(_rows(real), "the real set")
    root, trace = root_of(target_cov), float(np.trace(target_cov))

    def distance(mean: Array, cov: Array) -> float:
        return distance_to(target_mean, root, trace, mean, cov)

    values = [
        distance(*gaussian_of(_rows(x), name)) for x, name in ((dense, "the dense set"), (pruned, "the pruned set"))
    ]
    table = draws(len(dense), resamples, seed)
    found = np.array([[distance(*gaussian_of(_rows(x[row]))) for x in (dense, pruned)] for row in table])
    both = np.column_stack([found, found[:, 1] - found[:, 0]])
    centres = (*values, values[1] - values[0])
    bounds = [
        percentiles(column - column.mean() + centre, confidence) for column, centre in zip(both.T, centres, strict=True)
    ]
    return (
        Estimate(values[0], bounds[0]),
        Estimate(values[1], bounds[1]),
        Difference(centres[2], bounds[2], verdict(bounds[2], "lower", len(dense), confidence)),
    )


def _rows(features: Array) -> Array:
    return features.reshape(-1, features.shape[-1])
