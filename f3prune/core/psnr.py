"""Peak signal-to-noise ratio of videos. Imports no torch."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from f3prune.core.errors import InputError


def psnr(reference: npt.ArrayLike, candidate: npt.ArrayLike) -> float:
    """Peak signal-to-noise ratio in dB of two videos (or frames) of one shape for a peak of 1, computed in float64.

    Returns:
        Infinity where both are equal, NaN where a value is.

    Raises:
        InputError: the shapes differ.
    """
    a, b = (np.asarray(video, dtype=np.float64) for video in (reference, candidate))
    if a.shape != b.shape:
        raise InputError(f"cannot compare videos of shapes {a.shape} and {b.shape}: expected one shape")
    error = float(np.square(a - b).mean())
    return -10.0 * math.log10(error) if error else math.inf
