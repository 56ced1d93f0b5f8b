"""Transposes that undo each other."""

from __future__ import annotations

import onnx_ir as ir

from f3prune.exporter.rewrites.transposes import transpose_order


class CancelledTransposes(ir.passes.InPlacePass):  # type: ignore[misc]
    """``Transpose(Transpose(x))`` becomes ``x`` where the two orders of axes undo each other.

    Why:
        onnxscript's rule leaves a Transpose alone that something else reads as well, as keys and values of a
        frame-local attention are read by its text queries and by its frames.

    Ensures:
        the same values; the first Transpose stays for its other readers.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such pair of the main graph."""
        modified = False
        for node in list(model.graph):
            inner = node.inputs[0].producer() if node.op_type == "Transpose" and node.inputs[0] is not None else None
            if inner is None or inner.op_type != "Transpose" or node.outputs[0].is_graph_output():
                continue
            first, second = transpose_order(inner), transpose_order(node)
            source = inner.inputs[0]
            if source is not None and [first[axis] for axis in second] == list(range(len(first))):
                ir.convenience.replace_all_uses_with(node.outputs[0], source)
                graph = node.graph
                if graph is not None:
                    graph.remove(node, safe=True)
                modified = True
        return ir.passes.PassResult(model, modified=modified)
