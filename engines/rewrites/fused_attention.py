"""Attention in one operator of ONNX Runtime, which never holds the score matrix."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from f3prune.engines.rewrites._score_channel import padded, with_scores
from f3prune.engines.rewrites._writer import NodeWriter
from f3prune.exporter.rewrites.transposes import transpose_order

DOMAIN = "com.microsoft"
HEADS_INNER = [0, 2, 1, 3]
"""Between ``b h n d`` and ``b n h d``, either way."""


@dataclass(frozen=True)
class _Attention:
    """``softmax(scale * q @ k.T + mask) @ v``, as the exporter writes it.

    Attributes:
        query, key, value: ``b h n d``.
        scale: factor of the scores.
        heads, head_dim, value_dim: their static sizes.
        mask: added to the scores, one for all queries: ``b h 1 n``, ``b`` and ``h`` may be 1; ``None`` without one.
        last: the node whose output is the attention's, ``b h n d``.
    """

    query: ir.Value
    key: ir.Value
    value: ir.Value
    scale: float
    heads: int
    head_dim: int
    value_dim: int
    mask: ir.Value | None
    last: ir.Node


class FusedAttention(ir.passes.InPlacePass):  # type: ignore[misc]
    """MatMul, Softmax, MatMul becomes ``com.microsoft.MultiHeadAttention``.

    Why:
        the CPU provider computes that operator in blocks that stay in the cache (FlashAttention-2, arXiv 2307.08691):
        a fifth less time, and no score matrix of all tokens with all tokens. Its opset-23 ``Attention`` materialises
        that matrix and takes as long as the three operators. With few keys, as at temporal sites, the whole matrix of a
        head stays in the cache anyway, and the three operators take up to a third less time.

    Requires:
        four axes, static heads and head size, and more than one query: a single query has no matrix of scores, and its
        keys are a cache that would be transposed at every token. Every sample has keys and values of its own: the
        operator does not broadcast those that a whole batch shares, as those of ConsisID's face are. A mask must be the
        same for every query: the operator knows masks only outside its blocked kernel, so the mask becomes one more
        channel of the keys, which every query meets with a constant. An attention with any other mask is left as it
        is.

    Ensures:
        the same values up to rounding. Transposes between ``b n h d`` and ``b h n d`` next to the attention are gone.
    """

    VERSION = 4

    def __init__(self, fewest_keys: int = 1) -> None:
        """Leave attention to fewer than ``fewest_keys`` keys alone; of an unknown number, queries are counted."""
        super().__init__()
        self.fewest_keys = fewest_keys

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such attention of the main graph."""
        modified = False
        for node in list(model.graph):
            attention = _match(node)
            if attention is not None and _tokens(attention) >= self.fewest_keys:
                _replace(model.graph, attention)
                modified = True
        if modified:
            model.graph.opset_imports.setdefault(DOMAIN, 1)
            common.RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=modified)


def _match(softmax: ir.Node) -> _Attention | None:
    if softmax.op_type != "Softmax" or softmax.domain != "" or _axis(softmax) not in (-1, 3):
        return None
    scores, mask = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None, None
    if scores is not None and scores.op_type == "Add":
        scores, mask = scores.inputs[0].producer(), scores.inputs[1]
    last = _only_reader(softmax.outputs[0], "MatMul")
    if scores is None or scores.op_type != "MatMul" or last is None or last.inputs[0] is not softmax.outputs[0]:
        return None
    scaled, transposed = (value.producer() for value in scores.inputs)
    if scaled is None or scaled.op_type != "Mul" or transposed is None or transposed.op_type != "Transpose":
        return None
    factor = ir.convenience.get_const_tensor(scaled.inputs[1])
    if factor is None or factor.size != 1 or transpose_order(transposed) != [0, 1, 3, 2]:
        return None
    query, key, value = scaled.inputs[0], transposed.inputs[0], last.inputs[1]
    if query.shape is None or query.shape[2] == 1:
        return None
    sizes = [_head_sizes(tensor) for tensor in (query, key, value)]
    if None in sizes or sizes[0] != sizes[1] or sizes[2][0] != sizes[0][0]:  # type: ignore[index]
        return None
    if len({tensor.shape[0] == 1 for tensor in (query, key, value)}) > 1:
        return None
    if mask is not None and not _same_for_every_query(mask, sizes[0][0]):  # type: ignore[index]
        return None
    (heads, head_dim), (_, value_dim) = sizes[0], sizes[2]  # type: ignore[misc]
    scale = float(factor.numpy().reshape(-1)[0])
    return _Attention(query, key, value, scale, heads, head_dim, value_dim, mask, last)


def _tokens(attention: _Attention) -> int:
    """Keys, or where only running the graph tells how many there are, queries; none known counts as many."""
    for value in (attention.key, attention.query):
        size = value.shape[2] if value.shape is not None else None
        if isinstance(size, int):
            return size
    return sys.maxsize


def _head_sizes(value: ir.Value) -> tuple[int, int] | None:
    shape = value.shape
    if shape is None or len(shape) != 4 or not isinstance(shape[1], int) or not isinstance(shape[3], int):
        return None
    return shape[1], shape[3]


def _same_for_every_query(mask: ir.Value, heads: int) -> bool:
    shape = mask.shape
    return shape is not None and len(shape) == 4 and shape[1] in (1, heads) and shape[2] == 1


def _axis(softmax: ir.Node) -> int:
    axis = softmax.attributes.get("axis")
    return -1 if axis is None else axis.as_int()


def _only_reader(value: ir.Value, op_type: str) -> ir.Node | None:
    users = [use.node for use in value.uses()]
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def _moves_heads(node: ir.Node | None) -> bool:
    """A Transpose between ``b h n d`` and ``b n h d``."""
    return node is not None and node.op_type == "Transpose" and transpose_order(node) == HEADS_INNER


def _replace(graph: ir.Graph, found: _Attention) -> None:
    output = found.last.outputs[0]
    write = NodeWriter(graph, found.last, f"{output.name}/fused")
    query, key, value = (_heads_inner(write, tensor) for tensor in (found.query, found.key, found.value))
    head_dim = found.head_dim
    if found.mask is not None:
        dtype = found.query.dtype.numpy()
        query = padded(write, query, 1 / found.scale, dtype)
        key = with_scores(write, key, found.mask, dtype)
        head_dim += 1
    merged = write.add(
        "MultiHeadAttention",
        [
            _channels(write, query, found.heads * head_dim),
            _channels(write, key, found.heads * head_dim),
            _channels(write, value, found.heads * found.value_dim),
        ],
        DOMAIN,
        num_heads=found.heads,
        scale=found.scale,
    )
    reader = _only_reader(output, "Transpose")
    shape = write.constant(np.array([0, 0, found.heads, found.value_dim], np.int64))
    split = write.add("Reshape", [merged, shape])
    if reader is not None and _moves_heads(reader):
        replaced = reader.outputs[0]
        split.shape = replaced.shape
        ir.convenience.replace_all_uses_with(replaced, split)
        graph.remove(reader, safe=True)
    else:
        new = write.add("Transpose", [split], perm=HEADS_INNER)
        new.shape = output.shape
        ir.convenience.replace_all_uses_with(output, new)


def _heads_inner(write: NodeWriter, value: ir.Value) -> ir.Value:
    """``b h n d -> b n h d``; a Transpose that brought ``value`` into its order is skipped."""
    producer = value.producer()
    if producer is not None and _moves_heads(producer):
        inner: ir.Value = producer.inputs[0]
        return inner
    return write.add("Transpose", [value], perm=HEADS_INNER)


def _channels(write: NodeWriter, value: ir.Value, channels: int) -> ir.Value:
    """``b n h d -> b n (h d)``."""
    return write.add("Reshape", [value, write.constant(np.array([0, 0, channels], np.int64))])
