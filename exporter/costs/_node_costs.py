"""Floating-point operations of single operators, from the shapes of what they read and write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from f3prune.core.errors import ArtifactError
from f3prune.exporter.costs._concrete_shapes import Tensor

ATTENTION = frozenset({"Attention", "MultiHeadAttention"})
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "FusedMatMul", "Gemm", "MatMul"}) | ATTENTION


def product_flops(node: Any, inputs: Sequence[Tensor | None], output: Tensor) -> int:
    """Two operations for every multiply-add of a matrix product, convolution or attention; 0 for other operators.

    Attention counts the products of queries with keys and of probabilities with values, cached keys included. A causal
    mask does not make it cheaper: no backend here skips what it hides.

    Args:
        node: ``onnx.NodeProto``.
        inputs: of the node, ``None`` where an optional one is missing.
        output: its first output.

    Raises:
        ArtifactError: an attention whose operands are laid out in a way that is not known.
    """
    if node.op_type not in PRODUCTS:
        return 0
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in ATTENTION:
        return _attention_flops(node, inputs, attributes)
    first, second = inputs[0], inputs[1] if len(inputs) > 1 else None
    if first is None or (second is None and node.op_type != "Einsum"):
        return 0
    if node.op_type == "Einsum":
        return _einsum_flops(attributes["equation"].s.decode(), [value for value in inputs if value is not None])
    if second is None:
        return 0
    if node.op_type == "Conv":
        return 2 * output.elements * math.prod(second.shape[1:])
    if node.op_type == "ConvTranspose":
        return 2 * first.elements * math.prod(second.shape[1:])
    transposed = attributes["transA"].i if "transA" in attributes else 0
    inner = first.shape[-2] if transposed else first.shape[-1]
    return 2 * output.elements * inner


def _attention_flops(node: Any, inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> int:
    query, key, value = (inputs[index] if index < len(inputs) else None for index in range(3))
    past = inputs[6 if node.domain == "com.microsoft" else 4 : 7 if node.domain == "com.microsoft" else 5]
    earlier = past[0].shape[2] if past and past[0] is not None else 0
    if query is None or key is None or value is None or len(query.shape) not in {3, 4}:
        raise ArtifactError(f"{node.op_type} {node.name} has packed operands: give it query, key and value apart")
    if len(query.shape) == 3:
        batch, queries, width = query.shape
        heads = next((attributes[a].i for a in ("num_heads", "q_num_heads") if a in attributes), 1)
        head_dim = width // heads
    else:
        batch, heads, queries, head_dim = query.shape
    if len(value.shape) == 3:
        groups = attributes["kv_num_heads"].i if "kv_num_heads" in attributes else heads
        keys, value_dim = value.shape[1], value.shape[2] // groups
    else:
        keys, value_dim = value.shape[2], value.shape[3]
    return 2 * batch * heads * queries * (keys + earlier) * (head_dim + value_dim)


def _einsum_flops(equation: str, operands: Sequence[Tensor]) -> int:
    """Two per combination of all indices for two operands, as one nested loop would take; 0 for a permutation."""
    if len(operands) < 2:
        return 0
    sizes: dict[str, int] = {}
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    for term, operand in zip(terms, operands, strict=True):
        before, dots, after = term.partition("...")
        hidden = len(operand.shape) - len(before) - len(after)
        names = [*before, *(f"...{hidden - axis}" for axis in range(hidden) if dots), *after]
        for name, size in zip(names, operand.shape, strict=True):
            sizes[name] = max(size, sizes.get(name, 1))
    return 2 * math.prod(sizes.values()) * (len(operands) - 1)
