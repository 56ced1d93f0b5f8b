"""QR decomposition in operators that ONNX has."""

from __future__ import annotations

from typing import Any

import torch

from f3prune.exporter.rewrites.trace._function_mode import FunctionRewrite


class HouseholderQR(FunctionRewrite):
    """``torch.linalg.qr`` becomes a product of reflections, one for every column.

    Why:
        Wan Animate makes the directions of its motion encoder orthogonal at every call. ONNX has no QR.

    Requires:
        a matrix with no more columns than rows, and few of them; other calls are left alone.

    Ensures:
        the same reduced factors, signs included, to rounding: LAPACK reflects every column to the side away from it.
    """

    def __init__(self) -> None:
        super().__init__({torch.linalg.qr: reduced_qr})


def reduced_qr(matrix: torch.Tensor, mode: str = "reduced", **options: Any) -> Any:
    """``m n -> (m n, n n)``; NotImplemented for what it is not about."""
    if mode != "reduced" or options or matrix.ndim != 2 or matrix.shape[0] < matrix.shape[1]:
        return NotImplemented
    rows, columns = matrix.shape
    upper, mirrors = matrix, []
    # A column of one element needs no reflection.
    for k in range(min(columns, rows - 1)):
        column = upper[k:, k]
        length = column.square().sum().sqrt()
        first = column[:1] + torch.where(column[:1] < 0, -length, length)
        normal = torch.cat([first, column[1:]])
        normal = normal / normal.square().sum().sqrt()
        normal = torch.cat([normal.new_zeros(k), normal])
        upper = _reflected(upper, normal)
        mirrors.append(normal)
    basis = torch.eye(rows, columns, dtype=matrix.dtype, device=matrix.device)
    for normal in reversed(mirrors):
        basis = _reflected(basis, normal)
    return basis, torch.triu(upper[:columns])


def _reflected(matrix: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Columns of ``m n`` mirrored at the plane whose unit normal is ``m``."""
    return matrix - 2 * normal[:, None] * (normal[None, :] @ matrix)
