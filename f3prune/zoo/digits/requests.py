"""What the digit models are asked to draw: digits and directions evenly, each with a prompt and a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from f3prune.zoo.digits.dataset import DIRECTIONS, prompt_of


@dataclass(frozen=True)
class Request:
    """One clip to draw: what it should show, the prompt that says so, and the seed of its noise."""

    digit: int
    direction: str
    prompt: str
    seed: int

    @property
    def generator(self) -> torch.Generator:
        """A fresh random generator from the request's seed."""
        return torch.Generator("cpu").manual_seed(self.seed)


def requests(count: int, first_seed: int) -> list[Request]:
    """`count` requests that go evenly through the 40 pairs of digit and direction, in the wordings of the training."""
    draw = np.random.default_rng(first_seed)
    pairs = [(digit, direction) for direction in DIRECTIONS for digit in range(10)]
    if count < len(pairs):
        pairs = [pairs[i] for i in draw.permutation(len(pairs))]
    chosen = [pairs[i % len(pairs)] for i in range(count)]
    return [Request(d, way, prompt_of(d, way, draw), first_seed + i) for i, (d, way) in enumerate(chosen)]
