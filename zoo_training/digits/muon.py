"""Muon (K. Jordan, 2024): momentum whose update of each weight matrix is made orthogonal by a few matrix products.

It needs fewer steps than AdamW on the matrices of a small transformer, which is what counts on a processor. The update
is scaled to the typical size of an AdamW update, so that both share one learning rate (Liu et al., arXiv 2502.16982).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Updates matrices `rows columns` (float32); matrices of one shape are made orthogonal together."""

    def __init__(
        self, matrices: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients at hand; `closure` is not used."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[torch.nn.Parameter, torch.Tensor]]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append((matrix, matrix.grad))
            for (rows, columns), matrices in by_shape.items():
                looks_ahead = []
                for matrix, gradient in matrices:
                    momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                    momentum.lerp_(gradient, 1.0 - group["momentum"])
                    looks_ahead.append(gradient.lerp(momentum, group["momentum"]))
                updates = orthogonal(torch.stack(looks_ahead)) * (0.2 * max(rows, columns) ** 0.5)
                for (matrix, _), update in zip(matrices, updates, strict=True):
                    matrix.mul_(1.0 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])


def orthogonal(stack: torch.Tensor) -> torch.Tensor:
    """Nearly orthogonal matrices with the singular vectors of `stack` (`n rows columns`), by Newton-Schulz steps."""
    a, b, c = COEFFICIENTS
    tall = stack.shape[1] > stack.shape[2]
    x = stack.mT if tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
