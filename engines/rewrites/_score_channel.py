"""What is added to the scores of each key, as one more channel of queries and keys.

Queries hold ``1 / scale`` in that channel and keys hold what is added: the scaled product is the sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from f3prune.engines.rewrites._writer import NodeWriter

__all__ = ["LOWEST_SCORE", "padded", "with_scores"]

AXES = 4
"""Of queries and keys, ``b n h d``."""
LOWEST_SCORE = -3e4
"""Stands for minus infinity: its exponential is 0 in every dtype, and fp16 can hold it."""


def padded(write: NodeWriter, value: ir.Value, filler: float, dtype: np.dtype[Any]) -> ir.Value:
    """``b n h d -> b n h (d+1)``: one more channel that holds ``filler``.

    Tokens that were cut out of a longer sequence are copied once, not twice: an operator pads the channel and cuts the
    tokens, and reshapes between the two follow.
    """
    reshapes, source = _reshapes_above(value)
    axes = AXES if source.shape is None else len(source.shape)
    before, after = [0] * axes, [0] * axes
    cut = _cut(source)
    if cut is not None:
        source, axis, start, end = cut
        before[axis], after[axis] = -start, -end
    after[-1] += 1
    pads = write.constant(np.array([*before, *after], np.int64))
    wide = write.add("Pad", [source, pads, write.constant(np.array(filler, dtype))])
    for sizes in reversed(reshapes):
        wide = write.add("Reshape", [wide, write.constant(np.array([*sizes[:-1], sizes[-1] + 1], np.int64))])
    return wide


def with_scores(write: NodeWriter, key: ir.Value, mask: ir.Value, dtype: np.dtype[Any]) -> ir.Value:
    """Keys ``b n h d -> b n h (d+1)`` that hold ``mask``, ``b h 1 n``, in their last channel.

    Where the mask is one constant row and keys are laid side by side, every piece gets its own part of the row before
    it is laid: a part of equal values is padding, and only the others are written out.
    """
    row, pieces = _constant_row(mask), _pieces(key)
    if row is None or pieces is None or sum(_tokens(piece) for piece in pieces) != row.size:
        return _with_row(write, key, write.add("Transpose", [mask], perm=[0, 3, 1, 2]), dtype)
    parts, start = [], 0
    for piece in pieces:
        part = row[start : start + _tokens(piece)]
        start += part.size
        if (part == part[0]).all():
            parts.append(padded(write, piece, max(float(part[0]), LOWEST_SCORE), dtype))
        else:
            parts.append(_with_row(write, piece, write.constant(part.reshape(1, -1, 1, 1)), dtype))
    return parts[0] if len(parts) == 1 else write.add("Concat", parts, axis=1)


def _with_row(write: NodeWriter, key: ir.Value, row: ir.Value, dtype: np.dtype[Any]) -> ir.Value:
    """A row ``b n h 1``, whose axes b and h may be 1, beside keys ``b n h d``."""
    row = write.add("Max", [row, write.constant(np.array(LOWEST_SCORE, dtype))])
    # Over batch and heads, whatever the batch is: the keys' own shape, but for one channel.
    shape = write.add("Concat", [write.shape(key, 3), write.constant(np.array([1], np.int64))], axis=0)
    return write.add("Concat", [key, write.add("Expand", [row, shape])], axis=3)


def _constant_row(mask: ir.Value) -> np.ndarray | None:
    """The values of a mask that is the same for every sample and head, where they are a constant of the graph."""
    sizes = mask.shape
    if sizes is None or any(size != 1 for size in list(sizes)[:-1]):
        return None
    source: ir.Value | None = mask
    while source is not None and (node := source.producer()) is not None and node.op_type in {"Unsqueeze", "Reshape"}:
        source = node.inputs[0]
    tensor = None if source is None else ir.convenience.get_const_tensor(source)
    return None if tensor is None else tensor.numpy().reshape(-1)


def _pieces(key: ir.Value) -> list[ir.Value] | None:
    """What is laid side by side along tokens, each of a known number; the keys themselves where nothing is."""
    node = key.producer()
    laid = node is not None and node.op_type == "Concat" and node.attributes["axis"].as_int() in (1, -3)
    found = list(node.inputs) if node is not None and laid else [key]
    known = all(piece is not None and piece.shape is not None and _tokens(piece) > 0 for piece in found)
    return found if known else None


def _tokens(piece: ir.Value) -> int:
    size = None if piece.shape is None else piece.shape[1]
    return size if isinstance(size, int) else 0


def _reshapes_above(value: ir.Value) -> tuple[list[list[int]], ir.Value]:
    """Sizes of the reshapes that lead to ``value`` and leave channels alone, last one first, and where they start."""
    found: list[list[int]] = []
    while (node := value.producer()) is not None and node.op_type == "Reshape":
        source, sizes = node.inputs[0], ir.convenience.get_const_tensor(node.inputs[1])
        if source is None or source.shape is None or value.shape is None or sizes is None:
            break
        wanted = [int(size) for size in sizes.numpy()]
        if not isinstance(value.shape[-1], int) or not wanted[-1] == value.shape[-1] == source.shape[-1]:
            break
        allow_zero = node.attributes.get("allowzero")
        if allow_zero is not None and allow_zero.as_int() and 0 in wanted:
            break
        found.append(wanted)
        value = source
    return found, value


def _cut(value: ir.Value) -> tuple[ir.Value, int, int, int] | None:
    """What ``value`` is cut from along one axis of a known size: the source, the axis, and what goes at both ends."""
    node = value.producer()
    if node is None or node.op_type != "Slice" or node.inputs[0] is None or node.inputs[0].shape is None:
        return None
    source, *rest = node.inputs
    given = [None if one is None else ir.convenience.get_const_tensor(one) for one in rest]
    if len(given) < 3 or any(one is None or one.size != 1 for one in given):
        return None
    start, end, axis, *step = (int(one.numpy().reshape(-1)[0]) for one in given if one is not None)
    axis %= len(source.shape)
    size = source.shape[axis]
    if step not in ([], [1]) or not isinstance(size, int) or axis == len(source.shape) - 1:
        return None
    first, last, _ = slice(start, min(end, size)).indices(size)
    return source, axis, first, size - last
