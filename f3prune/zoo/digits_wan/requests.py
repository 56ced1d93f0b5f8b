"""What `zoo:digits-wan` is asked to draw: digits, colours, speeds and directions evenly, one or two in a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from f3prune.zoo.digits_wan.dataset import COLOURS, DIRECTIONS, SPEEDS, Mover, prompt_of


@dataclass(frozen=True)
class Request:
    """One clip to draw.

    Attributes:
        movers: what it should show, the digit in front last.
        prompt: that says so.
        seed: of its noise.
    """

    movers: tuple[Mover, ...]
    prompt: str
    seed: int

    @property
    def generator(self) -> torch.Generator:
        """A fresh random generator from the request's seed."""
        return torch.Generator("cpu").manual_seed(self.seed)


def requests(count: int, first_seed: int) -> list[Request]:
    """``count`` requests, every other with two digits, in the wordings of the training.

    Of the digits asked for, one after another through all requests, ten in a row are all different, and eight in a row
    move in all eight ways.
    """
    draw = np.random.default_rng(first_seed)
    ways = [(speed, direction) for speed in SPEEDS for direction in DIRECTIONS]
    digits: list[int] = []
    motions: list[tuple[str, str]] = []
    made = []
    for place in range(count):
        names = [str(name) for name in draw.permutation(list(COLOURS))]
        movers = []
        for name in names[: 1 + place % 2]:
            digits = digits or draw.permutation(10).tolist()
            motions = motions or [ways[k] for k in draw.permutation(len(ways))]
            movers.append(Mover(digits.pop(), name, *motions.pop()))
        made.append(Request(tuple(movers), prompt_of(tuple(movers), True, draw), first_seed + place))
    return made
