"""Says of each colour of a clip which digit it shows, which way that starts to move and how fast.

Digits are told apart by colour: every pixel belongs to the colour of the nearest hue. The digit: a support vector
machine over the frames that show most of it. The motion: of all paths that a digit of the data can take, bounces and
all, the one nearest to the centroids. Trained on the training handwriting only; the prompt is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from f3prune.zoo.digits.dataset import load_split
from f3prune.zoo.digits_wan.dataset import COLOURS, DIGIT, DIRECTIONS, FIRST_RUN, ROOM, SPEEDS, ClipSource, Mover, path

FLOOR = 0.2
"""Brightness below which a pixel is background."""
LEAST_INK = 60.0
"""Least sum of a colour over a frame, in full pixels (a real digit has 150 or more), for a digit to be there."""
HIDDEN = 0.6
"""A frame with less than this share of a digit's usual ink shows it half hidden, and does not count."""
LEAST_SEEN = 0.4
"""Share of the frames that must show the digit for its motion to count."""
CROP, CELL = 48, 4
"""Side of the window around the centroid and of the cells that it is averaged over, in pixels."""
LOOKS = 8
"""Frames of a clip that the digit is read from; where two digits cross, a third colour shows in a few."""
MOST_ERROR = 3.0
"""Mean distance between centroids and path, in pixels, above which a motion is none of the data's."""
OFF_CENTRE = 10.0
"""Pixels that a digit's centroid may lie off the middle of its square."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """What one colour of a clip shows; None for what it does not show.

    Attributes:
        digit: 0 to 9.
        direction, speed: words.
    """

    digit: int | None
    direction: str | None
    speed: str | None

    def digit_is(self, mover: Mover) -> bool:
        """Whether it is the digit asked for."""
        return self.digit == mover.digit

    def motion_is(self, mover: Mover) -> bool:
        """Whether it moves the way and as fast as asked for."""
        return (self.direction, self.speed) == (mover.direction, mover.speed)


class Judge:
    """Trained on first construction (a few seconds); the same seed gives the same judge."""

    def __init__(self, seed: int = 0, images: int = 3000) -> None:
        from sklearn.svm import SVC

        source = ClipSource(load_split(), seed)
        crops: list[Array] = []
        digits: list[int] = []
        while len(digits) < images:
            shown = source.batch(250, frames=1, two_share=0.0)
            for video, (mover,) in zip(_pixels(shown.video.numpy()), shown.movers, strict=True):
                crops.append(crop(ink(video, mover.colour)[0]).ravel())
                digits.append(mover.digit)
        self._machine: Any = SVC(C=10.0, gamma="scale", decision_function_shape="ovr", random_state=seed)
        self._machine.fit(np.stack(crops), digits)

    def __call__(self, video: npt.NDArray[Any], colours: Sequence[str]) -> list[Verdict]:
        """Judge the named colours of one clip ``f h w c`` (float in [0, 1], or uint8)."""
        scale = 255.0 if video.dtype == np.uint8 else 1.0
        pixels = np.asarray(video, dtype=np.float32) / np.float32(scale)
        layers = [ink(pixels, colour) for colour in colours]
        return [Verdict(self.digit(layer), *motion(layer)) for layer in layers]

    def digit(self, layer: Array) -> int | None:
        """The digit of a layer ``f h w``; None where there is hardly anything."""
        amounts = layer.sum(axis=(1, 2))
        # Where two digits cross, the one behind is cut: the frames that show most are read.
        best = np.argsort(-amounts, kind="stable")[:LOOKS]
        best = best[amounts[best] >= LEAST_INK]
        if len(best) < min(LOOKS, len(layer)):
            return None
        scores = self._machine.decision_function(np.stack([crop(layer[frame]).ravel() for frame in best]))
        return int(self._machine.classes_[scores.mean(axis=0).argmax()])


def _pixels(video: Array) -> Array:
    """Clips ``b c f h w`` in [-1, 1] to ``b f h w c`` in [0, 1]."""
    return video.transpose(0, 2, 3, 4, 1) * np.float32(0.5) + np.float32(0.5)


def ink(video: Array, colour: str) -> Array:
    """How much of a colour the pixels of a clip ``f h w c`` in [0, 1] show: ``f h w`` in [0, 1]."""
    names = list(COLOURS)
    hues = np.array([COLOURS[name] for name in names], dtype=np.float32)
    brightest = hues.max(axis=1)
    amount = video.max(axis=-1)
    layer: Array = np.zeros_like(amount)
    shown = amount >= FLOOR
    nearest = (video[shown] @ (hues / np.linalg.norm(hues, axis=1, keepdims=True)).T).argmax(axis=1)
    place = names.index(colour)
    layer[shown] = np.where(nearest == place, amount[shown] / brightest[place], np.float32(0.0)).clip(0.0, 1.0)
    return layer


def centroids(layer: Array) -> npt.NDArray[np.float64]:
    """Centres of a layer ``f h w``: ``f 2`` (row, column) in pixels; the middle of an empty frame."""
    height, width = layer.shape[1:]
    total = layer.sum(axis=(1, 2), dtype=np.float64)
    rows = layer.sum(axis=2, dtype=np.float64) @ np.arange(height)
    columns = layer.sum(axis=1, dtype=np.float64) @ np.arange(width)
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    centres = np.stack([rows, columns], axis=1) / np.maximum(total, 1e-9)[:, None]
    return np.asarray(np.where(total[:, None] > 0.0, centres, middle))


def crop(frame: Array) -> Array:
    """The window around the centroid of a frame ``h w``, averaged over cells: ``12 12``."""
    row, column = centroids(frame[None])[0]
    padded = np.pad(frame, CROP // 2)
    top, left = round(row + 0.5), round(column + 0.5)
    cells = CROP // CELL
    window = padded[top : top + CROP, left : left + CROP].reshape(cells, CELL, cells, CELL)
    return np.asarray(window.mean(axis=(1, 3)), dtype=np.float32)


def motion(layer: Array) -> tuple[str | None, str | None]:
    """Direction at the start and speed of a layer ``f h w``, as words; None for both if it moves in no known way."""
    amounts = layer.sum(axis=(1, 2))
    usual = np.median(np.sort(amounts)[len(amounts) // 2 :])
    seen = np.flatnonzero(amounts >= max(LEAST_INK, HIDDEN * usual))
    if len(layer) < 2 or len(seen) < LEAST_SEEN * len(layer):
        return None, None
    centres = centroids(layer)[seen]
    best, found = MOST_ERROR, (None, None)
    middle = (DIGIT - 1) / 2
    for way, unit in DIRECTIONS.items():
        axis = 0 if unit[0] else 1
        across = centres[:, 1 - axis]
        drift = np.abs(across - np.median(across)).mean()
        for pace, pixels in SPEEDS.items():
            # A path that is thrown back at once is one in the other direction.
            runs = np.arange(FIRST_RUN // 2, ROOM + 1)[:, None]
            starts = runs if sum(unit) < 0 else ROOM - runs
            paths = path(starts, np.full_like(starts, sum(unit) * pixels), len(layer))[:, seen, 0]
            gaps = centres[:, axis] - paths
            offsets = np.median(gaps, axis=1).clip(middle - OFF_CENTRE, middle + OFF_CENTRE)
            error = float(np.abs(gaps - offsets[:, None]).mean(axis=1).min() + drift)
            if error < best:
                best, found = error, (way, pace)  # type: ignore[assignment]
    return found
