"""Names that say which module of the denoiser a node came from: ``transformer_blocks.0.attn1/MatMul_248``.

ONNX Runtime's profiles and TensorRT's layer information print node names, so both can be read by site.
"""

from __future__ import annotations

import ast
import re

import onnx_ir as ir

SEPARATOR = "/"
_SCOPES = "pkg.torch.onnx.name_scopes"
_WRAPPER = "denoiser"
_REPEATED = re.compile(r"@\d+")


def module_of(name: str) -> str | None:
    """The module in a node's name; empty for the denoiser's own forward, ``None`` where it names none."""
    module, separator, _ = name.rpartition(SEPARATOR)
    return module if separator else None


def name_by_module(model: ir.Model) -> None:
    """Put the module in front of every node's name, before the exporter's metadata is cleared.

    Requires:
        a graph as ``torch.onnx.export`` gives it, of a module that holds the denoiser as ``denoiser``.

    Ensures:
        ``MODULE/NODE``, MODULE as ``denoiser.named_modules()`` spells it, however often it runs.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
        # The last scope is the operator; the others are nested modules from the outside in.
        inside = [scope for scope in scopes[:-1] if scope.startswith(f"{_WRAPPER}.")]
        module = _REPEATED.sub("", inside[-1]).removeprefix(f"{_WRAPPER}.") if inside else ""
        node.name = f"{module}{SEPARATOR}{(node.name or node.op_type).removeprefix('node_')}"


class InheritModule(ir.passes.InPlacePass):  # type: ignore[misc]
    """Nodes that a rewrite made without a module in their name take that of what they feed, else of what feeds them.

    Ensures:
        names are unique after ``NameFixPass``, and depend on the graph alone.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename, from the outputs back to the inputs so that chains of new nodes are covered."""
        modified = False
        for node in reversed(list(model.graph)):
            if module_of(node.name or "") is not None:
                continue
            users = [use.node for output in node.outputs for use in output.uses()]
            sources = [value.producer() for value in node.inputs if value is not None]
            names = [other.name or "" for other in (*users, *sources) if other is not None]
            module = next((found for name in names if (found := module_of(name)) is not None), "")
            node.name = f"{module}{SEPARATOR}{(node.name or node.op_type).removeprefix('node_')}"
            modified = True
        return ir.passes.PassResult(model, modified=modified)
