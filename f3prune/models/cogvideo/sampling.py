"""From logits to tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from f3prune.core.errors import InputError

Sampler = Callable[[torch.Tensor, torch.Generator | None], torch.Tensor]
"""``(logits b v, generator) -> tokens b``; only image tokens are drawn."""


def _check(temperature: float, top_k: int) -> None:
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}, expected a number above 0")
    if top_k < 1:
        raise InputError(f"top_k is {top_k}, expected a whole number of at least 1")


def _draw(probabilities: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


@dataclass(frozen=True)
class GreedySampler:
    """The likeliest of the first ``image_tokens`` tokens."""

    image_tokens: int

    def __call__(self, logits: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """``b v -> b``."""
        return logits[:, : self.image_tokens].argmax(dim=-1)


@dataclass(frozen=True)
class TopKSampler:
    """One of the ``top_k`` likeliest image tokens, by ``softmax(logits / temperature)``."""

    image_tokens: int
    top_k: int = 16
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check(self.temperature, self.top_k)

    def __call__(self, logits: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """``b v -> b``."""
        valid = logits[:, : self.image_tokens].float() / self.temperature
        best, tokens = valid.topk(min(self.top_k, self.image_tokens), dim=-1)
        chosen = _draw(best.softmax(dim=-1), generator)
        return tokens.gather(1, chosen[:, None])[:, 0]


@dataclass(frozen=True, eq=False)
class ClusterSampler:
    """CogVideo's sampler: draw one of the ``top_k`` heaviest clusters of tokens, then a token of it.

    Attributes:
        labels: ``v`` int64, the cluster of every image token.
        top_k: number of clusters kept.
        temperature: of both draws.
        temperature2: of the second draw, on top of the first.
    """

    labels: torch.Tensor
    top_k: int = 12
    temperature: float = 1.05
    temperature2: float = 0.89

    def __post_init__(self) -> None:
        _check(self.temperature, self.top_k)
        _check(self.temperature2, self.top_k)

    def clusters(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities ``b k`` of the kept clusters, heaviest first, and their labels ``b k``."""
        probabilities = (logits[:, : len(self.labels)].float() / self.temperature).softmax(dim=-1)
        mass = probabilities.new_zeros(logits.shape[0], int(self.labels.max()) + 1)
        mass.index_add_(1, self.labels, probabilities)
        kept, labels = mass.topk(min(self.top_k, mass.shape[1]), dim=-1)
        return kept / kept.sum(dim=-1, keepdim=True), labels

    def tokens(self, logits: torch.Tensor, cluster: torch.Tensor) -> torch.Tensor:
        """Probabilities ``b v`` of the image tokens, given the cluster ``b`` of every row."""
        valid = logits[:, : len(self.labels)].float() / (self.temperature * self.temperature2)
        return valid.masked_fill(self.labels[None] != cluster[:, None], -torch.inf).softmax(dim=-1)

    def __call__(self, logits: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """``b v -> b``."""
        weights, labels = self.clusters(logits)
        chosen = _draw(weights, generator)
        cluster = labels.gather(1, chosen[:, None])[:, 0]
        return _draw(self.tokens(logits, cluster), generator)
