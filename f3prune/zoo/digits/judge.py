"""Says which digit a clip shows and which way it moves; trained on real clips of the training digits only.

The digit: a support vector machine over frames that are cropped around the centroid, its class scores averaged over
the frames of a clip. The direction: the line through the centroids, by least squares. Neither looks at the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from f3prune.zoo.digits.dataset import CANVAS, FRAMES, ClipSource, load_split

CROP = 20
"""Side of the window around the centroid, in pixels; it is averaged down to half of that."""
LEAST_TRAVEL = 7.0
"""Least way, in pixels over a whole clip, that counts as motion (real digits go 14)."""
LEAST_RATIO = 2.0
"""The main axis must carry at least this many times the way of the other axis."""
LEAST_INK = 15.0
"""Least sum of brightness of a frame (a real digit has 55 or more) for it to count as showing anything."""
FLOOR = 0.15
"""Brightness below this is taken as background."""

Frames = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """What a clip shows: a digit (0 to 9), or None if a frame is empty; a direction word, or None if there is none."""

    digit: int | None
    direction: str | None


class Judge:
    """Trained on first construction (a few seconds); the same seed gives the same judge."""

    def __init__(self, seed: int = 0, clips: int = 3000) -> None:
        from sklearn.svm import SVC

        batch = ClipSource(load_split(), seed).batch(clips, frames=1, still_share=1.0)
        frames = grey(batch.video.numpy().transpose(0, 2, 3, 4, 1) * 0.5 + 0.5)[:, 0]
        self._machine: Any = SVC(C=10.0, gamma="scale", decision_function_shape="ovr", random_state=seed)
        self._machine.fit(np.stack([crop(frame).ravel() for frame in frames]), batch.digits)

    def __call__(self, video: npt.NDArray[Any]) -> Verdict:
        """Judges one clip `f h w c` (float in [0, 1], or uint8)."""
        return self.judge(video[None])[0]

    def judge(self, videos: npt.NDArray[Any]) -> list[Verdict]:
        """Judges clips `b f h w c` (float in [0, 1], or uint8)."""
        return [Verdict(self.digit(frames), direction(frames)) for frames in grey(videos)]

    def digit(self, frames: Frames) -> int | None:
        """The digit of one grey clip `f h w`."""
        if any(clean(frame).sum() < LEAST_INK for frame in frames):
            return None
        scores = self._machine.decision_function(np.stack([crop(frame).ravel() for frame in frames]))
        return int(self._machine.classes_[scores.mean(axis=0).argmax()])


def grey(videos: npt.NDArray[Any]) -> Frames:
    """Clips `... h w c` (float in [0, 1], or uint8) to brightness `... h w` (float32 in [0, 1])."""
    scale = 255.0 if videos.dtype == np.uint8 else 1.0
    return np.asarray(videos.mean(axis=-1) / scale, dtype=np.float32)


def clean(frame: Frames) -> Frames:
    """The frame `h w` with its faint background set to zero."""
    return np.where(frame >= FLOOR, frame, 0.0).astype(np.float32)


def centroid(frame: Frames) -> tuple[float, float]:
    """Centre of brightness of a frame `h w`: (row, column) in pixels; the middle of an empty frame."""
    ink = clean(frame)
    total = float(ink.sum())
    if total <= 0.0:
        return (CANVAS - 1) / 2, (CANVAS - 1) / 2
    rows, columns = np.indices(ink.shape)
    return float((rows * ink).sum()) / total, float((columns * ink).sum()) / total


def crop(frame: Frames) -> Frames:
    """The 20x20 window around the centroid of a frame `h w`, averaged down to 10x10."""
    row, column = centroid(frame)
    padded = np.pad(frame, CROP // 2)
    top, left = round(row + 0.5), round(column + 0.5)
    window = padded[top : top + CROP, left : left + CROP]
    half = CROP // 2
    return np.asarray(window.reshape(half, 2, half, 2).mean(axis=(1, 3)), dtype=np.float32)


def direction(frames: Frames) -> str | None:
    """The direction word of one grey clip `f h w`, from the slope of its centroids; None if it hardly moves."""
    if len(frames) < 2:
        return None
    places = np.array([centroid(frame) for frame in frames])
    down, right = np.polyfit(np.arange(len(frames)), places, 1)[0] * (len(frames) - 1)
    least = LEAST_TRAVEL * (len(frames) - 1) / (FRAMES - 1)
    if max(abs(down), abs(right)) < least or max(abs(down), abs(right)) < LEAST_RATIO * min(abs(down), abs(right)):
        return None
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "down" if down > 0 else "up"
