"""Fréchet distance of two Gaussians, in float64. Imports no torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from f3prune.core.errors import InputError

Array = npt.NDArray[np.float64]


def frechet_distance(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """``|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))``, the squared 2-Wasserstein distance.

    The trace of the root is that of the symmetric ``(A^(1/2) B A^(1/2))^(1/2)``, which has the same eigenvalues, from
    eigenvalues that are clipped at 0: singular covariances need no offset, and nothing complex can appear, as it does
    with a general matrix square root.

    Source:
        Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500, eq. 6.

    Args:
        mean_a, mean_b: ``d``, float64.
        cov_a, cov_b: ``d d``, float64, symmetric.

    Returns:
        At least 0, in squared units of the features.

    Raises:
        InputError: shapes differ, or a value is not finite.
    """
    return distance_to(mean_a, root_of(cov_a), float(np.trace(cov_a)), mean_b, cov_b)


def root_of(covariance: Array) -> Array:
    """The symmetric root of a covariance ``d d``; eigenvalues below 0, which only rounding makes, count as 0.

    Raises:
        InputError: it is not square, or a value is not finite.
    """
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise InputError(f"a covariance of shape {covariance.shape} is not square: expected d d")
    if not np.isfinite(covariance).all():
        raise InputError("a covariance holds values that are not finite: look for broken videos or features")
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root: Array = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    return root


def distance_to(mean_a: Array, root_a: Array, trace_a: float, mean_b: Array, cov_b: Array) -> float:
    """As ``frechet_distance``, with the root ``d d`` and the trace of the first covariance at hand."""
    if not mean_a.shape == mean_b.shape == cov_b.shape[:1] == root_a.shape[:1] or cov_b.shape != root_a.shape:
        raise InputError(
            f"cannot compare Gaussians of means {mean_a.shape} and {mean_b.shape}, covariances {root_a.shape} and "
            f"{cov_b.shape}: expected features of one network"
        )
    middle = root_a @ cov_b @ root_a
    if not (np.isfinite(middle).all() and np.isfinite(mean_a).all() and np.isfinite(mean_b).all()):
        raise InputError("a mean or covariance is not finite: look for broken videos or features")
    values = np.linalg.eigvalsh((middle + middle.T) / 2)
    shared = float(np.sqrt(np.clip(values, 0.0, None)).sum())
    apart = float(np.square(mean_a - mean_b).sum())
    # Rounding alone can bring equal Gaussians below 0.
    return max(apart + trace_a + float(np.trace(cov_b)) - 2.0 * shared, 0.0)


def gaussian_of(features: Array, where: str = "the set") -> tuple[Array, Array]:
    """Mean ``d`` and unbiased covariance ``d d`` of features ``n d``.

    Raises:
        InputError: not ``n d``, or fewer than d + 1 rows, of which a covariance of d dimensions cannot have full rank.
    """
    if features.ndim != 2:
        raise InputError(f"features of {where} have shape {features.shape}: expected n d")
    count, width = features.shape
    if count < width + 1:
        raise InputError(
            f"{where} has {count} feature rows of {width} dimensions: a Fréchet distance needs at least {width + 1}, "
            "so give more videos"
        )
    rows = features.astype(np.float64)
    centred = rows - rows.mean(axis=0)
    return rows.mean(axis=0), centred.T @ centred / (count - 1)


def frechet_from_features(a: Array, b: Array) -> float:
    """Fréchet distance of the Gaussians of two sets of features, each ``n d`` with n > d.

    The estimate is biased upwards by about 1/n: compare distances of equally many samples only (Chong and Forsyth
    2020, Effectively Unbiased FID and Inception Score, arXiv 1911.07023).

    Raises:
        InputError: too few rows, or features of different widths.
    """
    return frechet_distance(*gaussian_of(a, "the first set"), *gaussian_of(b, "the second set"))
