"""Motion between frames by optical flow: the warping error and the dynamic degree. Imports no torch.

The flow is OpenCV's DIS (Kroeger et al. 2016, Fast Optical Flow using Dense Inverse Search, arXiv 1603.03590): it needs
no weights. It has patches of 8 pixels on several scales, so tiny frames are enlarged for it first.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from f3prune.quality._packages import need
from f3prune.quality.metrics._frames import Frames, check_frames

Flow = npt.NDArray[np.float32]
LEAST_EDGE = 256
"""Frames with a shorter short edge are enlarged to this many pixels before flow is estimated."""
TOP_SHARE = 0.05
"""Share of pixels, of the largest motion, that the dynamic degree averages."""


def dynamic_degree(video: Frames) -> float | None:
    """How much moves, in percent of the short edge per frame, of a video ``f h w 3``; None for a single frame.

    Of each pair of neighbouring frames the mean length of the largest 5 % of flow vectors, then the mean over pairs: a
    small object that moves over a still background counts, and a frozen video has 0. Relative to the short edge, so
    that sizes compare: 1 means an object crosses the picture in 100 frames.

    Source:
        Huang et al. 2023, VBench, arXiv 2311.17982, "dynamic degree": there of RAFT flow, and per video the answer
        whether enough frames exceed a threshold; here the number itself, since a threshold hides gradual loss.

    Raises:
        InputError: not a video, or OpenCV is missing.
    """
    check_frames(video)
    if len(video) < 2:
        return None
    found = []
    for first, second in _pairs(video):
        lengths = np.linalg.norm(flow_between(_grey(first), _grey(second)), axis=-1).ravel()
        count = max(1, round(TOP_SHARE * lengths.size))
        found.append(float(np.partition(lengths, -count)[-count:].mean()) / min(first.shape[:2]))
    return 100.0 * float(np.mean(found))


def warping_error(video: Frames) -> float | None:
    """Mean squared change of a pixel along its motion, of a video ``f h w 3`` in [0, 1].

    Each frame is compared with the next one, warped back by the flow between them, where both flows agree: elsewhere
    something appears or is covered, and no pixel corresponds. Mean over those pixels and colours, then over pairs of
    frames. None for a single frame, or where no pixel of any pair corresponds.

    Source:
        Lai et al. 2018, Learning Blind Video Temporal Consistency, arXiv 1808.00449, section 4.3; its mask is from
        Ruder et al. 2016, Artistic Style Transfer for Videos, arXiv 1604.08610, eqs. 5 and 6, both conditions.

    Raises:
        InputError: not a video, or OpenCV is missing.
    """
    check_frames(video)
    found = [error for first, second in _pairs(video) if (error := _pair_error(first, second)) is not None]
    return float(np.mean(found)) if found else None


def flow_between(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> Flow:
    """Flow ``h w 2`` (right, down; pixels) from one grey frame ``h w`` (8 bits) to the next."""
    cv2 = need("cv2", "optical flow")
    # A new one each time: it keeps the flow before as a start, which would make the order of videos matter.
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(method.calc(first, second, None), dtype=np.float32)


def warp(image: npt.NDArray[Any], flow: Flow) -> npt.NDArray[np.float32]:
    """The values of ``image`` (``h w c``) at the end of each flow vector (``h w 2``), bilinear; edges are repeated."""
    cv2 = need("cv2", "optical flow")
    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    moved = cv2.remap(image, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.float32)


def corresponding(forward: Flow, backward: Flow) -> npt.NDArray[np.bool_]:
    """Where (``h w``) a pixel of the first frame is also seen in the second, by two flows ``h w 2``."""
    returned = warp(backward, forward)
    squares = np.square(forward).sum(-1) + np.square(returned).sum(-1)
    visible = np.square(forward + returned).sum(-1) <= 0.01 * squares + 0.5
    steps = sum(np.square(np.gradient(forward[..., axis])).sum(0) for axis in range(2))
    smooth = steps <= 0.01 * np.square(forward).sum(-1) + 0.002
    rows, columns = np.indices(forward.shape[:2])
    right, down = columns + forward[..., 0], rows + forward[..., 1]
    inside = (right >= 0) & (right <= forward.shape[1] - 1) & (down >= 0) & (down <= forward.shape[0] - 1)
    return np.asarray(visible & smooth & inside)


def _pair_error(first: Frames, second: Frames) -> float | None:
    forward, backward = flow_between(_grey(first), _grey(second)), flow_between(_grey(second), _grey(first))
    mask = corresponding(forward, backward)
    if not mask.any():
        return None
    return float(np.square(first - warp(second, forward))[mask].mean(dtype=np.float64))


def _pairs(video: Frames) -> list[tuple[Frames, Frames]]:
    frames = [_enlarged(frame) for frame in video]
    return list(itertools.pairwise(frames))


def _enlarged(frame: Frames) -> Frames:
    cv2 = need("cv2", "optical flow")
    height, width = frame.shape[:2]
    factor = LEAST_EDGE / min(height, width)
    if factor <= 1.0:
        return frame
    size = (round(width * factor), round(height * factor))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _grey(frame: Frames) -> npt.NDArray[np.uint8]:
    cv2 = need("cv2", "optical flow")
    return np.rint(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) * 255.0).clip(0, 255).astype(np.uint8)
