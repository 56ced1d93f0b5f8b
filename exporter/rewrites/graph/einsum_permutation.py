"""An Einsum that only permutes axes as Transpose."""

from __future__ import annotations

import re

import onnx_ir as ir


class EinsumPermutation(ir.passes.InPlacePass):  # type: ignore[misc]
    """``Einsum("nhwpqc->nchpwq", x)`` becomes a Transpose.

    Why:
        ONNX has no Einsum for bfloat16; Latte puts its patches back together so.

    Requires:
        one input, no repeated and no summed letter; other equations stay.

    Ensures:
        the same values.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such Einsum of the main graph."""
        modified = False
        for node in list(model.graph):
            order = _order(node)
            if order is None:
                continue
            old = node.outputs[0]
            new = ir.node("Transpose", [node.inputs[0]], attributes={"perm": order}, name=node.name)
            new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = old.name, old.type, old.shape
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], [new], [old], new.outputs)
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def _order(node: ir.Node) -> list[int] | None:
    """Where each output axis of the Einsum stood in its input, if that is all it does."""
    if node.op_type != "Einsum" or node.domain != "" or len(node.inputs) != 1:
        return None
    match = re.fullmatch(r"([A-Za-z]+)->([A-Za-z]+)", node.attributes["equation"].as_string().replace(" ", ""))
    if match is None or len(set(match[1])) != len(match[1]) or sorted(match[1]) != sorted(match[2]):
        return None
    return [match[1].index(letter) for letter in match[2]]
