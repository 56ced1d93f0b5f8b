"""Procedural clips: a handwritten digit crosses a dark canvas in one of four directions, with a prompt that says so.

The handwriting is scikit-learn's `load_digits` (1 797 images of 8x8), upscaled to 16x16. A fifth of the images is held
out: neither the pipeline nor the judge is trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

CANVAS = 32
"""Height and width of a frame, in pixels."""
FRAMES = 8
"""Frames of a clip."""
DIGIT = 16
"""Height and width of an upscaled digit, in pixels."""
SPEED = 2
"""Pixels that a digit moves from one frame to the next."""
TRAVEL = SPEED * (FRAMES - 1)
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Direction word -> unit step (rows, columns); rows grow downwards."""
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a {digit} moving {direction}",
    "the digit {digit} moving {direction}",
    "a handwritten {digit} moving {direction}",
    "a {digit} moving to the {direction}",
    "a handwritten digit {digit} moves {direction}",
    "the number {digit} is going {direction}",
)
STILL_TEMPLATES = ("a {digit}", "the digit {digit}", "a handwritten {digit}")
"""Prompts of single images, which have no direction."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Digits:
    """Images `n h w` (float32 in [0, 1], 16x16 pixels) and their labels `n` (int64, 0 to 9)."""

    images: torch.Tensor
    labels: torch.Tensor


@cache
def load_split(held_out: bool = False) -> Digits:
    """The training images of `load_digits`, or the fifth of them that is held out (the split is always the same)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    train, test = train_test_split(np.arange(len(source.target)), test_size=0.2, random_state=0, stratify=source.target)
    chosen = test if held_out else train
    small = torch.tensor(source.images[chosen], dtype=torch.float32)[:, None] / 16.0
    large = torch.nn.functional.interpolate(small, size=(DIGIT, DIGIT), mode="bicubic", align_corners=False)
    return Digits(large[:, 0].clamp(0.0, 1.0), torch.tensor(source.target[chosen], dtype=torch.int64))


def typical(split: Digits, count: int) -> Digits:
    """Of each digit the `count` images that are nearest to the mean image of that digit."""
    chosen = []
    for digit in range(10):
        places = torch.nonzero(split.labels == digit)[:, 0]
        images = split.images[places]
        distance = (images - images.mean(dim=0)).square().sum(dim=(1, 2))
        chosen.append(places[distance.argsort(stable=True)[:count]])
    kept = torch.cat(chosen)
    return Digits(split.images[kept], split.labels[kept])


@dataclass(frozen=True)
class Clips:
    """A batch of clips.

    `video` is `b c f h w` (float32 in [-1, 1], three equal colour channels); `prompts`, `digits` and `directions` have
    one entry per clip (the direction of a still image is "").
    """

    video: torch.Tensor
    prompts: list[str]
    digits: list[int]
    directions: list[str]


class ClipSource:
    """Draws random clips from one split; the same seed gives the same sequence of batches."""

    def __init__(self, split: Digits, seed: int) -> None:
        self._split = split
        self.generator = np.random.default_rng(seed)

    def batch(self, size: int, frames: int = FRAMES, still_share: float = 0.0) -> Clips:
        """Draws `size` clips: the first `frames` frames of moving digits.

        With `frames` = 1, `still_share` of the images show a digit anywhere, under a prompt without a direction.
        """
        draw = self.generator
        canvas = torch.zeros(size, frames, CANVAS, CANVAS)
        prompts: list[str] = []
        digits: list[int] = []
        directions: list[str] = []
        for i in range(size):
            index = int(draw.integers(len(self._split.labels)))
            digit = int(self._split.labels[index])
            still = frames == 1 and draw.random() < still_share
            direction = "" if still else str(draw.choice(list(DIRECTIONS)))
            for frame, (row, column) in enumerate(path_of(direction, frames, draw)):
                canvas[i, frame, row : row + DIGIT, column : column + DIGIT] = self._split.images[index]
            prompts.append(prompt_of(digit, direction, draw))
            digits.append(digit)
            directions.append(direction)
        video = (canvas * 2.0 - 1.0)[:, None].expand(-1, 3, -1, -1, -1).contiguous()
        return Clips(video, prompts, digits, directions)


def path_of(direction: str, frames: int, draw: np.random.Generator) -> list[tuple[int, int]]:
    """Top-left corners (row, column), in pixels, of a digit in each frame; a random place if `direction` is ""."""
    room = CANVAS - DIGIT
    if not direction:
        return [(int(draw.integers(room + 1)), int(draw.integers(room + 1)))] * frames
    step_row, step_column = DIRECTIONS[direction]
    margin = int(draw.integers(room - TRAVEL + 1))
    across = int(draw.integers(room + 1))
    along = [margin + SPEED * i for i in range(frames)]
    if step_row + step_column < 0:
        along = [room - place for place in along]
    return [(place, across) if step_row else (across, place) for place in along]


def prompt_of(digit: int, direction: str, draw: np.random.Generator) -> str:
    """A prompt for a clip: half of them in the plainest wording, the rest in any wording, some with number words."""
    templates = TEMPLATES if direction else STILL_TEMPLATES
    template = templates[0] if draw.random() < 0.5 else str(draw.choice(list(templates)))
    name = WORDS[digit] if draw.random() < 0.15 else str(digit)
    return template.format(digit=name, direction=direction)


def vocabulary() -> list[str]:
    """Every word that a prompt can hold, in a fixed order."""
    words = [*map(str, range(10)), *WORDS, *DIRECTIONS]
    for template in (*TEMPLATES, *STILL_TEMPLATES):
        words += [word for word in template.split() if not word.startswith("{")]
    return list(dict.fromkeys(words))
