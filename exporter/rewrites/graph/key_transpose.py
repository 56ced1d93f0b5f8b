"""The transposed keys of attention as one Transpose."""

from __future__ import annotations

import onnx_ir as ir

from f3prune.exporter.rewrites.transposes import transpose_order

Sizes = list[int | tuple[str, int]]
"""A shape as far as it is known: numbers, and ``("axis", k)`` for the size of axis k."""


class KeyTranspose(ir.passes.InPlacePass):  # type: ignore[misc]
    """Reshape to three axes, Transpose of the last two, Reshape back becomes one Transpose.

    Why:
        the exporter writes the keys of every attention so, with six more nodes to compute the two shapes. TensorRT
        looks for MatMul(q, Transpose(k)), Softmax, MatMul to make one fused attention kernel of.

    Requires:
        shapes that are computed from the shape of the keys alone, by Shape, Slice and Concat; anything else is left.

    Ensures:
        the same values.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such sequence of the main graph."""
        modified = False
        for node in list(model.graph):
            source = _transposed_source(node)
            if source is None or source.shape is None:
                continue
            axes = len(source.shape)
            order = [*range(axes - 2), axes - 1, axes - 2]
            old = node.outputs[0]
            shape = ir.Shape([source.shape[axis] for axis in order])
            new = ir.node("Transpose", [source], attributes={"perm": order}, name=node.name)
            new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = old.name, source.type, shape
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], [new], [old], new.outputs)
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def _transposed_source(node: ir.Node) -> ir.Value | None:
    """What ``node`` transposes the last two axes of, if it is the last Reshape of such a sequence."""
    transpose = _producer(node, "Reshape", 0)
    first = None if transpose is None else _producer(transpose, "Transpose", 0)
    if transpose is None or first is None or transpose.op_type != "Transpose" or first.op_type != "Reshape":
        return None
    source = first.inputs[0]
    if source is None or source.shape is None or transpose_order(transpose) != [0, 2, 1]:
        return None
    sizes: Sizes = [("axis", axis) for axis in range(len(source.shape))]
    folded, unfolded = _sizes(first.inputs[1], source), _sizes(node.inputs[1], source)
    if folded != [-1, *sizes[-2:]] or unfolded != [*sizes[:-2], sizes[-1], sizes[-2]]:
        return None
    return source


def _producer(node: ir.Node, op_type: str, index: int) -> ir.Node | None:
    if node.op_type != op_type or node.domain != "" or len(node.inputs) <= index or node.inputs[index] is None:
        return None
    producer: ir.Node | None = node.inputs[index].producer()
    return producer


def _sizes(value: ir.Value | None, source: ir.Value) -> Sizes | None:
    """A computed shape in terms of the axes of ``source``; ``None`` where it depends on something else."""
    if value is None:
        return None
    constant = ir.convenience.get_const_tensor(value)
    if constant is not None:
        return [int(size) for size in constant.numpy().reshape(-1)]
    node = value.producer()
    if node is None or node.domain != "" or source.shape is None:
        return None
    if node.op_type == "Shape" and node.inputs[0] is source and _whole(node):
        return [("axis", axis) for axis in range(len(source.shape))]
    if node.op_type == "Concat":
        parts = [_sizes(part, source) for part in node.inputs]
        return None if None in parts else [size for part in parts if part is not None for size in part]
    if node.op_type == "Slice":
        whole = _sizes(node.inputs[0], source)
        bounds = [ir.convenience.get_const_tensor(bound) for bound in node.inputs[1:3]]
        if whole is None or len(node.inputs) > 3 or any(bound is None or bound.size != 1 for bound in bounds):
            return None
        start, stop = (int(bound.numpy().reshape(-1)[0]) for bound in bounds if bound is not None)
        return whole[start:stop]
    return None


def _whole(shape: ir.Node) -> bool:
    start = shape.attributes.get("start")
    return "end" not in shape.attributes and (start is None or start.as_int() == 0)
