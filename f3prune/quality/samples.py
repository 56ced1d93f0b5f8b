"""What is generated to judge quality: prompts, each with a seed of its own, the same for every variant."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from f3prune.core.errors import InputError
from f3prune.pipelines.prompts import Prompt
from f3prune.pipelines.sources import ModelSource


@dataclass(frozen=True)
class Sample:
    """One video to generate: its prompt, and the seed of its noise."""

    prompt: Prompt
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The prompt's parts and ``seed``."""
        return {**self.prompt.to_json(), "seed": self.seed}


def samples_of(prompts: Sequence[Prompt], count: int, seed: int) -> list[Sample]:
    """``count`` samples that go through the prompts in turn; sample k has the seed ``seed + k``.

    Raises:
        InputError: there are no prompts, or fewer than one sample is wanted.
    """
    if count < 1:
        raise InputError(f"`samples` is {count}, expected at least 1")
    if not prompts:
        raise InputError("there are no prompts to generate for: give `prompts` with at least one")
    return [Sample(prompt, seed + k) for k, prompt in zip(range(count), itertools.cycle(prompts), strict=False)]


def zoo_samples(source: ModelSource, count: int, seed: int) -> list[Sample] | None:
    """Fresh requests of the digit clips, every digit in every direction equally often; None for other models."""
    if source.zoo_name is None or not source.zoo_name.startswith("digits"):
        return None
    from f3prune.zoo.digits.requests import requests

    return [Sample(Prompt(request.prompt), request.seed) for request in requests(count, seed)]
