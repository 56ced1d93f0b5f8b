"""The Fréchet distance between two sets of features, each taken as a normal distribution."""

from __future__ import annotations

import numpy as np

from f3prune.errors import InputError
from f3prune.zoo.features.network import Features


def frechet_distance(first: Features, second: Features) -> float:
    """Squared distance of the means plus that of the covariances, for features `n d` and `m d` (float64).

    The sample covariances have rank at most `n - 1`, and the distance of small sets is biased upwards: compare sets of
    equal and ample size.

    Raises:
        InputError: fewer than two rows in a set, or sets of different width.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise InputError(f"features must be n d and m d with two rows or more, not {first.shape} and {second.shape}")
    ours, theirs = (np.cov(features, rowvar=False).reshape(first.shape[1], -1) for features in (first, second))
    values, vectors = np.linalg.eigh(ours)
    root = vectors * np.sqrt(values.clip(0.0)) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ theirs @ root).clip(0.0)).sum()
    means = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    return max(0.0, float(means + np.trace(ours) + np.trace(theirs) - 2.0 * overlap))
