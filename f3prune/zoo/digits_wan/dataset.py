"""Procedural clips of one or two coloured handwritten digits that move, cross and bounce, with prompts that say it all.

The handwriting is that of ``f3prune.zoo.digits.dataset``, upscaled further; the same fifth of it is held out. Clips are
rendered in tensors, on a GPU if asked, thousands a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from f3prune.zoo.digits.dataset import WORDS, Digits

CANVAS = 128
"""Height and width of a frame, in pixels."""
FRAMES = 49
"""Frames of a clip: one latent frame for the first, one for every four that follow."""
DIGIT = 40
"""Height and width of a digit, in pixels."""
ROOM = CANVAS - DIGIT
"""Pixels that a digit can move before it bounces."""
FIRST_RUN = 16
"""Pixels that a digit moves at least before its first bounce: one that starts at a border and is thrown back at once
would move against its prompt."""
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (1.0, 0.15, 0.15),
    "yellow": (1.0, 0.9, 0.1),
    "green": (0.1, 0.85, 0.2),
    "cyan": (0.1, 0.9, 0.95),
    "blue": (0.25, 0.35, 1.0),
    "purple": (0.85, 0.2, 0.95),
}
"""Colour word -> red, green and blue in [0, 1]; hues lie a sixth of the circle apart."""
SPEEDS: dict[str, int] = {"slowly": 1, "fast": 3}
"""Speed word -> pixels from one frame to the next."""
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Direction word -> unit step (rows, columns) at the start; rows grow downwards."""
TEMPLATES = (
    "a {colour} {digit} moving {speed} {direction}",
    "the {colour} digit {digit} moves {speed} {direction}",
    "a handwritten {colour} {digit} going {direction} {speed}",
)
STILL_TEMPLATES = ("a {colour} {digit}", "the {colour} digit {digit}", "a handwritten {colour} {digit}")
"""Of single frames, which show no motion."""


@dataclass(frozen=True)
class Mover:
    """One digit of a clip.

    Attributes:
        digit: 0 to 9.
        colour, speed, direction: words.
    """

    digit: int
    colour: str
    speed: str
    direction: str


@dataclass(frozen=True)
class Clips:
    """A batch of clips.

    Attributes:
        video: ``b c f h w``, float32 in [-1, 1].
        prompts: one for each clip.
        movers: the digits of each clip, the one in front last.
    """

    video: torch.Tensor
    prompts: list[str]
    movers: list[tuple[Mover, ...]]


class ClipSource:
    """Draws random clips from one split of the handwriting; the same seed gives the same clips on every device."""

    def __init__(self, split: Digits, seed: int, device: torch.device | str = "cpu") -> None:
        self.generator = np.random.default_rng(seed)
        self.device = torch.device(device)
        self._labels = split.labels.numpy()
        large = torch.nn.functional.interpolate(
            split.images[:, None], size=(DIGIT, DIGIT), mode="bicubic", align_corners=False
        )
        # A border of nothing: what lies outside a digit is read there.
        self._images = torch.nn.functional.pad(large[:, 0].clamp(0.0, 1.0), (1, 1, 1, 1)).to(self.device)

    def batch(self, size: int, frames: int = FRAMES, two_share: float = 0.5) -> Clips:
        """Draw ``size`` clips of ``frames`` frames, of which a share ``two_share`` shows two digits.

        With one frame, prompts say nothing of motion.
        """
        draw = self.generator
        twos = draw.random(size) < two_share
        movers: list[tuple[Mover, ...]] = []
        chosen = draw.integers(len(self._labels), size=(size, 2))
        places = draw.integers(ROOM + 1, size=(size, 2, 2))
        runs = draw.integers(FIRST_RUN, ROOM + 1, size=(size, 2, 1))
        steps = np.zeros((size, 2, 2), dtype=np.int64)
        shades = np.zeros((size, 2, 3), dtype=np.float32)
        for clip in range(size):
            names = draw.permutation(list(COLOURS))[:2]
            found = []
            for place in range(2):
                speed, direction = str(draw.choice(list(SPEEDS))), str(draw.choice(list(DIRECTIONS)))
                steps[clip, place] = np.array(DIRECTIONS[direction]) * SPEEDS[speed]
                shades[clip, place] = COLOURS[str(names[place])]
                digit = int(self._labels[chosen[clip, place]])
                found.append(Mover(digit, str(names[place]), speed, direction))
            movers.append(tuple(found) if twos[clip] else (found[1],))
        # A digit that goes up or left starts as far from the border in front of it as one that goes down or right.
        starts = np.where(steps == 0, places, np.where(steps < 0, runs, ROOM - runs))
        video = self._render(chosen, path(starts, steps, frames), shades, twos)
        return Clips(video, [prompt_of(shown, frames > 1, draw) for shown in movers], movers)

    def _render(self, chosen: np.ndarray, places: np.ndarray, shades: np.ndarray, twos: np.ndarray) -> torch.Tensor:
        """Compose digits ``b 2`` at ``b 2 f 2`` (row, column), the second in front: ``b c f h w`` in [-1, 1]."""
        size, frames = places.shape[0], places.shape[2]
        canvas = torch.zeros(size, 3, frames, CANVAS, CANVAS, device=self.device)
        pixels = torch.arange(CANVAS, device=self.device)
        for place in range(2):
            corner = torch.from_numpy(places[:, place]).to(self.device)
            rows, columns = ((pixels - corner[..., axis, None] + 1).clamp(0, DIGIT + 1) for axis in (0, 1))
            images = self._images[torch.from_numpy(chosen[:, place]).to(self.device)]
            clip = torch.arange(size, device=self.device)[:, None, None, None]
            ink = images[clip, rows[..., :, None], columns[..., None, :]][:, None]
            if place == 0:
                ink = ink * torch.from_numpy(twos).to(self.device)[:, None, None, None, None]
            colour = torch.from_numpy(shades[:, place]).to(self.device)[:, :, None, None, None]
            canvas = torch.lerp(canvas, colour.expand_as(canvas), ink)
        return canvas * 2.0 - 1.0


def path(starts: np.ndarray, steps: np.ndarray, frames: int) -> np.ndarray:
    """Corners ``… f 2`` of digits that start at ``… 2`` and move by ``… 2`` a frame, thrown back by the borders."""
    along = starts[..., None, :] + steps[..., None, :] * np.arange(frames)[:, None]
    folded = np.mod(along, 2 * ROOM)
    corners: np.ndarray = np.where(folded > ROOM, 2 * ROOM - folded, folded)
    return corners


def prompt_of(movers: tuple[Mover, ...], moving: bool, draw: np.random.Generator) -> str:
    """What a clip shows, the digit behind first; half of the prompts in the plainest wording."""
    templates = TEMPLATES if moving else STILL_TEMPLATES
    template = templates[0] if draw.random() < 0.5 else str(draw.choice(list(templates)))
    said = []
    for mover in movers:
        name = WORDS[mover.digit] if draw.random() < 0.15 else str(mover.digit)
        said.append(template.format(colour=mover.colour, digit=name, speed=mover.speed, direction=mover.direction))
    return " and ".join(said)


def vocabulary() -> list[str]:
    """Every word that a prompt can hold, in a fixed order."""
    words = [*map(str, range(10)), *WORDS, *COLOURS, *SPEEDS, *DIRECTIONS, "and"]
    for template in (*TEMPLATES, *STILL_TEMPLATES):
        words += [word for word in template.split() if not word.startswith("{")]
    return list(dict.fromkeys(words))
