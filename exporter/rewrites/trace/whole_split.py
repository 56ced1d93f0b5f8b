"""Work on a batch in pieces, to save memory, as one piece."""

from __future__ import annotations

from typing import Any

import torch

from f3prune.exporter.rewrites.trace._function_mode import FunctionRewrite


class WholeSplit(FunctionRewrite):
    """``torch.split`` into pieces of one size along an axis of symbolic length gives a single piece.

    Why:
        Wan Animate encodes the frames of the face eight at a time. How many pieces that makes depends on the batch, and
        the number of pieces is part of a graph: ``torch.export`` would fix the batch.

    Requires:
        pieces are treated alike and put together again, as whoever cuts a batch into pieces of one size does. Splits
        by a list of sizes, and along axes whose length is known, are left alone.

    Ensures:
        the same values put together.
    """

    def __init__(self) -> None:
        super().__init__({torch.split: split, torch.Tensor.split: split})


def split(tensor: torch.Tensor, split_size_or_sections: Any, dim: int = 0) -> Any:
    """One piece; NotImplemented for what it is not about."""
    if not isinstance(split_size_or_sections, int) or not isinstance(tensor.shape[dim], torch.SymInt):
        return NotImplemented
    return (tensor,)
