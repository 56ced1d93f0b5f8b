"""Zeros that are added to something, and what they are scaled by first."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir


class DroppedContribution(ir.passes.InPlacePass):  # type: ignore[misc]
    """``Add(x, zeros)`` becomes ``x``; ``Mul(zeros, y)`` becomes the zeros.

    Why:
        a dropped attention gives zeros of its input's shape. Left alone, the layer norm before it is computed for its
        shape only, the gate after it scales zeros, and the residual adds them.

    Requires:
        zeros written as Expand of a zero constant, and shapes that are known to be equal, symbols included: the zeros
        must not be what gives the result its shape. Runs after constants are folded, and dead nodes are dropped later.

    Ensures:
        the same values, where ``y`` is finite.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the main graph from its inputs on, so that zeros carry through."""
        modified = False
        zeros: set[int] = set()
        for node in list(model.graph):
            if node.domain != "" or len(node.outputs) != 1:
                continue
            output = node.outputs[0]
            if node.op_type == "Expand" and _is_zero(node.inputs[0]):
                zeros.add(id(output))
                continue
            found = _replacement(node, zeros)
            if found is None or not _same_shape(found, output):
                continue
            if output in model.graph.outputs:
                continue
            ir.convenience.replace_all_uses_with(output, found)
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def _replacement(node: ir.Node, zeros: set[int]) -> Any:
    """What the node's output can be replaced by, if one of its two inputs is zeros."""
    if len(node.inputs) != 2 or node.op_type not in {"Add", "Mul"}:
        return None
    first, second = node.inputs
    for zero, other in ((first, second), (second, first)):
        if id(zero) in zeros:
            return other if node.op_type == "Add" else zero
    return None


def _is_zero(value: Any) -> bool:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size == 1 and float(tensor.numpy().item()) == 0.0


def _same_shape(one: Any, other: Any) -> bool:
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return False
    pairs = zip(one.shape, other.shape, strict=True)
    return all(_known(a) is not None and _known(a) == _known(b) for a, b in pairs)


def _known(size: Any) -> int | str | None:
    return size if isinstance(size, int) else size.value
