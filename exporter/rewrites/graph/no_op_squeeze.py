"""Squeeze of an axis that is not one."""

from __future__ import annotations

import onnx_ir as ir


class NoOpSqueeze(ir.passes.InPlacePass):  # type: ignore[misc]
    """Remove a Squeeze whose only axis has a known size other than one.

    Why:
        PyTorch's ``squeeze(1)`` does nothing to such an axis, ONNX's Squeeze refuses it. Allegro squeezes the axis of
        its video tokens.

    Requires:
        shapes are known, as the exporter leaves them.

    Ensures:
        the same values; a Squeeze of an axis of one, or of unknown size, stays.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such Squeeze of the main graph."""
        modified = False
        for node in model.graph:
            if node.op_type == "Squeeze" and node.domain == "" and _does_nothing(node):
                source, target = node.inputs[0], node.outputs[0]
                ir.convenience.replace_all_uses_with(target, source, replace_graph_outputs=True)
                model.graph.remove(node, safe=True)
                modified = True
        return ir.passes.PassResult(model, modified=modified)


def _does_nothing(node: ir.Node) -> bool:
    source = node.inputs[0]
    axes = ir.convenience.get_const_tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    if axes is None or axes.size != 1 or source is None or source.shape is None:
        return False
    size = source.shape[int(axes.numpy().reshape(-1)[0])]
    return isinstance(size, int) and size != 1
