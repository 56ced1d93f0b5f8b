"""Weights of linear layers in the order that MatMul reads them."""

from __future__ import annotations

import onnx_ir as ir

from f3prune.exporter.rewrites.transposes import transpose_order


class TransposedWeights(ir.passes.InPlacePass):  # type: ignore[misc]
    """``MatMul(x, Transpose(weight))`` becomes ``MatMul(x, weight.T)`` with the weight stored transposed.

    Why:
        a Transpose of every weight at every call, or a second copy of all weights in the runtime that folds it.

    Requires:
        nothing; a weight with other uses keeps them, and is then stored twice only if those uses need it as it was.

    Ensures:
        the same values. A transposed weight is called ``NAME.T`` and is made when it is written, as a view.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every Transpose of a weight in the main graph."""
        modified = False
        for node in model.graph:
            if node.op_type == "Transpose" and node.domain == "" and not node.outputs[0].is_graph_output():
                source = node.inputs[0]
                tensor = source.const_value if source is not None and source.is_initializer() else None
                if source is not None and tensor is not None:
                    stored = _transposed(model.graph, source, tensor, tuple(transpose_order(node)))
                    ir.convenience.replace_all_uses_with(node.outputs[0], stored)
                    model.graph.remove(node, safe=True)
                    if not source.uses() and source.name is not None:
                        del model.graph.initializers[source.name]
                    modified = True
        return ir.passes.PassResult(model, modified=modified)


def _transposed(graph: ir.Graph, source: ir.Value, tensor: ir.TensorProtocol, order: tuple[int, ...]) -> ir.Value:
    """The initializer that holds ``tensor`` in another order of axes, made on first use."""
    swapped = order == (1, 0)
    name = f"{source.name}.T" if swapped else f"{source.name}.{'-'.join(map(str, order))}"
    if name not in graph.initializers:

        def compute() -> ir.Tensor:
            return ir.Tensor(tensor.numpy().transpose(order), dtype=tensor.dtype, name=name)

        shape = ir.Shape([tensor.shape[axis] for axis in order])
        stored = ir.LazyTensor(compute, dtype=tensor.dtype, shape=shape, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=stored)
        graph.initializers[name] = value
    return graph.initializers[name]
