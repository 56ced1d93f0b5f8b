"""Where on booleans as logic."""

from __future__ import annotations

import onnx_ir as ir


class BooleanWhere(ir.passes.InPlacePass):  # type: ignore[misc]
    """``Where(c, x, y)`` on booleans becomes ``(c and x) or (not c and y)``.

    Why:
        ONNX Runtime's CPU provider has no Where for booleans; HunyuanVideo fills its attention mask so
        (``masked_fill(padding, False)``).

    Requires:
        element types are known, as the exporter leaves them.

    Ensures:
        the same values and broadcasting; other Where nodes stay.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every boolean Where of the main graph."""
        modified = False
        for node in model.graph:
            if node.op_type == "Where" and node.domain == "" and node.outputs[0].dtype == ir.DataType.BOOL:
                _replace(model.graph, node)
                modified = True
        return ir.passes.PassResult(model, modified=modified)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    condition, yes, no = node.inputs
    tape = ir.tape.Tape()
    inverse = tape.op("Not", [condition])
    taken = tape.op("And", [condition, yes])
    other = tape.op("And", [inverse, no])
    result = tape.op("Or", [taken, other])
    result.name, result.type, result.shape = node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape
    for value, like in ((inverse, condition), (taken, result), (other, result)):
        value.type, value.shape = ir.TensorType(ir.DataType.BOOL), like.shape
    ir.convenience.replace_nodes_and_values(graph, node, [node], tape.nodes, [node.outputs[0]], [result])
