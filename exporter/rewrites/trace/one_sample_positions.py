"""Learned positions, which are the same for every sample, once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from diffusers.models.transformers.transformer_cosmos import CosmosLearnablePositionalEmbed


@contextlib.contextmanager
def positions_of_one_sample() -> Iterator[None]:
    """Cosmos computes its learned positions for one sample and adds them to all.

    Why:
        the original repeats them for every sample of the batch, and takes NumPy's square root of a quotient of two
        sizes that hold the batch: of a symbolic size there is none.

    Requires:
        nothing: the positions depend on the size of the video alone.

    Ensures:
        the same values, with a batch of one, which is added to a batch of any size.
    """
    original = CosmosLearnablePositionalEmbed.forward

    def forward(self: CosmosLearnablePositionalEmbed, hidden_states: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = original(self, hidden_states[:1])
        return result

    CosmosLearnablePositionalEmbed.forward = forward
    try:
        yield
    finally:
        CosmosLearnablePositionalEmbed.forward = original
