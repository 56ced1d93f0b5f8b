"""Assignment to a part of a tensor as concatenation."""

from __future__ import annotations

from typing import Any

import torch

from f3prune.exporter.rewrites.trace._function_mode import FunctionRewrite


class SliceAssignment(FunctionRewrite):
    """``x[:, :, n:] = y`` becomes ``x = cat([x[:, :, :n], y], 2)``.

    Why:
        CogVideoX writes rotated queries and keys behind the text so. Exported, each assignment is a ScatterND over the
        whole of q or k with a computed index tensor, two for every layer.

    Requires:
        one axis is sliced with step one, the others are whole; other assignments are left alone.

    Ensures:
        the same values in the same tensor.
    """

    def __init__(self) -> None:
        super().__init__({torch.Tensor.__setitem__: assign})


def assign(target: torch.Tensor, index: Any, values: Any) -> Any:
    """``target[index] = values`` in place; NotImplemented for what it is not about."""
    if not isinstance(index, tuple) or not isinstance(values, torch.Tensor) or len(index) > target.ndim:
        return NotImplemented
    if not all(isinstance(part, slice) and part.step in (None, 1) for part in index):
        return NotImplemented
    cut = [axis for axis, part in enumerate(index) if part != slice(None)]
    if len(cut) != 1:
        return NotImplemented
    (axis,) = cut
    part = index[axis]
    if _negative(part.start) or _negative(part.stop):
        return NotImplemented
    whole = (slice(None),) * axis
    pieces = [] if part.start is None else [target[(*whole, slice(None, part.start))]]
    pieces.append(values.to(target.dtype).expand(target[index].shape))
    if part.stop is not None:
        pieces.append(target[(*whole, slice(part.stop, None))])
    target.copy_(torch.cat(pieces, dim=axis))
    return None


def _negative(bound: Any) -> bool:
    return bound is not None and (not isinstance(bound, (int, torch.SymInt)) or bool(bound < 0))
