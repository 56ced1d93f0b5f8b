"""Repeating every element once."""

from __future__ import annotations

from typing import Any

import torch

from f3prune.exporter.rewrites.trace._function_mode import FunctionRewrite


class SingleRepeat(FunctionRewrite):
    """``x.repeat_interleave(1, dim)`` becomes ``x``.

    Why:
        Cosmos widens keys and values to the width of queries so, by a factor that is always 1. Exported, each is an
        Expand and two Reshapes over the whole of k or v.

    Requires:
        the factor is the plain number 1; other repetitions are left alone. Nobody writes to the result in place.

    Ensures:
        the same values.
    """

    def __init__(self) -> None:
        super().__init__({torch.Tensor.repeat_interleave: repeat, torch.repeat_interleave: repeat})


def repeat(tensor: torch.Tensor, repeats: Any, dim: int | None = None, **options: Any) -> Any:
    """``tensor`` itself; NotImplemented for what it is not about."""
    return tensor if type(repeats) is int and repeats == 1 and dim is not None else NotImplemented
