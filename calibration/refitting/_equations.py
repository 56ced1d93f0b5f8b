"""Least squares with a pull towards zero, from sums of products."""

from __future__ import annotations

import torch

from f3prune.core.errors import InputError

__all__ = ["NothingToRefit", "products", "solved"]


class NothingToRefit(InputError):
    """Nothing of the pruned attention is left, or takes its place, that could be refitted."""


def products(rows: torch.Tensor, lost: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``ΦᵀΦ`` and ``Φᵀ lost`` in float64, with a column of ones in Φ: ``(c+1) (c+1)`` and ``(c+1) k``.

    Args:
        rows: Φ, ``n c``.
        lost: ``n k``.
    """
    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    return (rows.T @ rows).double(), (rows.T @ lost).double()


def solved(
    gram: torch.Tensor, target: torch.Tensor, ridge: float, site: str, constant: bool = True
) -> torch.Tensor | None:
    """``Δ`` and the constant below it, float32 on the CPU; ``None`` where Φ is zero.

    Args:
        gram, target: see ``products``.
        ridge: strength of the pull, relative to the diagonal of ``ΦᵀΦ``.
        site: for messages.
        constant: fit a constant too; it is zero otherwise.

    Raises:
        InputError: fewer rows than channels.
    """
    diagonal = gram.diagonal()
    used = diagonal > 0
    used[-1] = constant
    columns, rows = int(used[:-1].sum()), round(float(diagonal[-1]))
    if not columns:
        return None
    if rows < columns:
        raise InputError(
            f"refit saw {rows} tokens at site {site}, fewer than its {columns} channels: give `refit` more generations"
        )
    pull = ridge * diagonal
    pull[-1] = 0.0
    solution = torch.zeros_like(target)
    solution[used] = torch.linalg.solve((gram + pull.diag())[used][:, used], target[used])
    return solution.float().cpu()
