"""How alike two videos are, and how steady one is. Videos are ``f h w 3``, float32 in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from f3prune.core.psnr import psnr

Frames = npt.NDArray[np.float32]
_C1, _C2 = 0.01**2, 0.03**2
_WINDOW = 7


@dataclass(frozen=True)
class Fidelity:
    """A candidate video against its reference.

    Attributes:
        psnr: peak signal-to-noise ratio over the whole video, dB; None where both are equal (infinite).
        psnr_per_frame: likewise for every frame.
        ssim: structural similarity, mean over frames, 1 for equal videos.
        flicker_reference, flicker_candidate: mean absolute change of a pixel from frame to frame.
    """

    psnr: float | None
    psnr_per_frame: list[float | None]
    ssim: float
    flicker_reference: float
    flicker_candidate: float


def fidelity(reference: Frames, candidate: Frames) -> Fidelity:
    """Compare two videos.

    Raises:
        InputError: their shapes differ.
    """
    whole = psnr(reference, candidate)
    frames = [psnr(a, b) for a, b in zip(reference, candidate, strict=True)]
    return Fidelity(
        psnr=None if whole == math.inf else whole,
        psnr_per_frame=[None if value == math.inf else value for value in frames],
        ssim=float(np.mean([ssim(a, b) for a, b in zip(reference, candidate, strict=True)])),
        flicker_reference=flicker(reference),
        flicker_candidate=flicker(candidate),
    )


def ssim(reference: npt.NDArray[np.float32], candidate: npt.NDArray[np.float32]) -> float:
    """Structural similarity of two frames ``h w 3`` in grey, uniform 7 x 7 windows, sample covariance."""
    a, b = (image.astype(np.float64).mean(axis=-1) for image in (reference, candidate))
    edge = min(_WINDOW, *a.shape)
    count = edge * edge
    scale = count / max(count - 1, 1)
    mean_a, mean_b = _box(a, edge), _box(b, edge)
    variance_a = scale * (_box(a * a, edge) - mean_a**2)
    variance_b = scale * (_box(b * b, edge) - mean_b**2)
    covariance = scale * (_box(a * b, edge) - mean_a * mean_b)
    top = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    bottom = (mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2)
    return float((top / bottom).mean())


def _box(image: npt.NDArray[np.float64], edge: int) -> npt.NDArray[np.float64]:
    """Means of all ``edge x edge`` windows that lie inside the image."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (edge, edge))
    means: npt.NDArray[np.float64] = windows.mean(axis=(-1, -2))
    return means


def flicker(frames: Frames) -> float:
    """Mean absolute change of a pixel from one frame to the next; 0 for a single frame."""
    if len(frames) < 2:
        return 0.0
    return float(np.abs(np.diff(frames.astype(np.float64), axis=0)).mean())
