"""What a metric takes for a video. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from f3prune.core.errors import InputError

Frames = npt.NDArray[np.float32]


def check_frames(video: npt.NDArray[Any], least_edge: int = 1) -> Frames:
    """The video, if it is ``f h w 3``, float32 in [0, 1], with edges of at least ``least_edge`` pixels.

    Raises:
        InputError: it is not.
    """
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.float32 or not len(video):
        raise InputError(f"a video is {video.dtype} of shape {video.shape}: expected float32 of f h w 3")
    if min(video.shape[1:3]) < least_edge:
        raise InputError(
            f"a video has frames of {video.shape[1]} x {video.shape[2]} pixels: expected at least {least_edge} a side"
        )
    # Written so that NaN fails too.
    if not (video.min() >= 0.0 and video.max() <= 1.0):
        raise InputError(f"a video has pixels from {video.min():.4g} to {video.max():.4g}: expected [0, 1]")
    return video


def check_pair(reference: npt.NDArray[Any], candidate: npt.NDArray[Any], least_edge: int = 1) -> None:
    """Refuse two videos of different shapes, or what is no video.

    Raises:
        InputError: as ``check_frames``, or shapes differ.
    """
    check_frames(reference, least_edge)
    check_frames(candidate, least_edge)
    if reference.shape != candidate.shape:
        raise InputError(f"cannot compare videos of shapes {reference.shape} and {candidate.shape}: expected one shape")
