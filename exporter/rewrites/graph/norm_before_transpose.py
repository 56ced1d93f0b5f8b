"""Queries and keys normalised before heads are moved."""

from __future__ import annotations

import onnx_ir as ir

from f3prune.exporter.rewrites.transposes import transpose_order


class NormBeforeTranspose(ir.passes.InPlacePass):  # type: ignore[misc]
    """``LayerNormalization(Transpose(x))`` becomes ``Transpose(LayerNormalization(x))`` where the last axis stays.

    Why:
        models that normalise queries and keys head by head move heads first. Frame-local attention, and the fused
        operators of runtimes, want them back where they were: next to each other the two Transposes cancel.

    Requires:
        a norm over the last axis alone, which the Transpose leaves last and nothing else reads.

    Ensures:
        the same values.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such norm of the main graph."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "LayerNormalization" and node.domain == "" and _last_axis_alone(node):
                before = node.inputs[0].producer()
                if before is not None and _keeps_last_axis(before) and len(before.outputs[0].uses()) == 1:
                    _swap(model.graph, before, node)
                    modified = True
        return ir.passes.PassResult(model, modified=modified)


def _last_axis_alone(norm: ir.Node) -> bool:
    axis, source = norm.attributes.get("axis"), norm.inputs[0]
    last = -1 if source is None or source.shape is None else len(source.shape) - 1
    return len(norm.outputs) == 1 and (axis is None or axis.as_int() in (-1, last))


def _keeps_last_axis(node: ir.Node) -> bool:
    if node.op_type != "Transpose" or node.domain != "" or node.outputs[0].is_graph_output():
        return False
    order = transpose_order(node)
    return order[-1:] == [len(order) - 1]


def _swap(graph: ir.Graph, transpose: ir.Node, norm: ir.Node) -> None:
    """Put a norm of the Transpose's input, and then the Transpose, in the place of ``norm``."""
    source, old = transpose.inputs[0], norm.outputs[0]
    attributes = [ir.AttrInt64("axis", -1), *(a for name, a in norm.attributes.items() if name != "axis")]
    normed = ir.Node("", "LayerNormalization", [source, *norm.inputs[1:]], attributes, name=norm.name)
    normed.outputs[0].name, normed.outputs[0].type = f"{old.name}/normed", old.type
    normed.outputs[0].shape = None if source is None else source.shape
    moved = ir.Node("", "Transpose", [normed.outputs[0]], transpose.attributes.values(), name=transpose.name)
    for node in (normed, moved):
        node.metadata_props.update(norm.metadata_props)
    moved.outputs[0].name, moved.outputs[0].type, moved.outputs[0].shape = old.name, old.type, old.shape
    ir.convenience.replace_nodes_and_values(graph, norm, [norm], [normed, moved], [old], moved.outputs)
    graph.remove(transpose, safe=True)
