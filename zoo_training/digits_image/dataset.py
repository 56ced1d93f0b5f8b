"""Single frames of the zoo's digit clips, with prompts that name the digit and sometimes where it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from f3prune.zoo.digits import dataset as clips
from f3prune.zoo.digits.dataset import CANVAS, DIRECTIONS, WORDS, ClipSource, Digits

PLACES: dict[str, tuple[int, int]] = {
    "on the left": (1, -1),
    "on the right": (1, 1),
    "at the top": (0, -1),
    "at the bottom": (0, 1),
}
"""Words for a place -> (axis, side): axis 0 is rows, which grow downwards; side -1 is the lower half of the axis."""
OFF_CENTRE = 4.0
"""A prompt may name a place only if the digit's centre is at least so many pixels from the middle of the canvas."""
PLACE_SHARE, MOTION_SHARE = 0.35, 0.15


@dataclass(frozen=True)
class Images:
    """A batch of images.

    `pixels` is `b c h w` (float32 in [-1, 1], three equal colour channels); `prompts` and `digits` have one entry each.
    """

    pixels: torch.Tensor
    prompts: list[str]
    digits: list[int]


class ImageSource:
    """Draws random images from one split; the same seed gives the same sequence of batches."""

    def __init__(self, split: Digits, seed: int) -> None:
        self._clips = ClipSource(split, seed)
        self.generator = self._clips.generator

    def batch(self, size: int) -> Images:
        """Draws `size` images of a digit anywhere on the canvas."""
        drawn = self._clips.batch(size, frames=1, still_share=1.0)
        pixels = drawn.video[:, :, 0]
        prompts = [
            prompt_of(digit, centre_of(image), self.generator)
            for digit, image in zip(drawn.digits, pixels, strict=True)
        ]
        return Images(pixels, prompts, drawn.digits)


def centre_of(image: torch.Tensor) -> tuple[float, float]:
    """Centre of brightness of an image `c h w` in [-1, 1]: (row, column), in pixels from the middle of the canvas."""
    ink = image[0] + 1.0
    places = torch.arange(CANVAS) - (CANVAS - 1) / 2
    total = ink.sum().clamp(min=1e-6)
    return float((ink.sum(dim=1) * places).sum() / total), float((ink.sum(dim=0) * places).sum() / total)


def prompt_of(digit: int, centre: tuple[float, float], draw: np.random.Generator) -> str:
    """A prompt for an image: the digit alone, the digit and its place, or the prompt of a clip it could be from."""
    kind = draw.random()
    if kind < MOTION_SHARE:
        return clips.prompt_of(digit, str(draw.choice(list(DIRECTIONS))), draw)
    fitting = [words for words, (axis, side) in PLACES.items() if centre[axis] * side >= OFF_CENTRE]
    if kind < MOTION_SHARE + PLACE_SHARE and fitting:
        name = WORDS[digit] if draw.random() < 0.15 else str(digit)
        return f"a {name} {draw.choice(fitting)}"
    return clips.prompt_of(digit, "", draw)


def vocabulary() -> list[str]:
    """Every word that a prompt can hold, in a fixed order."""
    words = clips.vocabulary()
    for place in PLACES:
        words += place.split()
    return list(dict.fromkeys(words))
