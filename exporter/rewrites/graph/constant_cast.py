"""Casts of weights, done once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


class ConstantCast(ir.passes.InPlacePass):  # type: ignore[misc]
    """A weight that is only ever cast to one other type is stored in that type.

    Why:
        CogVideoX keeps its sinusoidal positions in float64: 273 MB for CogVideoX-2b, of a type that TensorRT has no
        arithmetic in, cast to 68 MB of float16 at every call.

    Requires:
        the weight is no output of the graph.

    Ensures:
        the same values: NumPy rounds to nearest even, as the Cast does. The cast weight is computed when it is written.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such weight of the main graph."""
        modified = False
        for name in list(model.graph.initializers):
            value = model.graph.initializers[name]
            target = _only_cast(value)
            tensor = value.const_value
            if target is None or tensor is None:
                continue
            value.const_value = _cast(tensor, target)
            value.dtype = target
            for node in value.consumers():
                ir.convenience.replace_all_uses_with(node.outputs[0], value)
                model.graph.remove(node, safe=True)
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def _only_cast(value: ir.Value) -> ir.DataType | None:
    """The type that every use of ``value`` casts it to, if there is one."""
    users = value.consumers()
    if not users or value.is_graph_output() or any(node.op_type != "Cast" or node.domain for node in users):
        return None
    if any(node.outputs[0].is_graph_output() for node in users):
        return None
    targets = {ir.DataType(node.attributes["to"].as_int()) for node in users}
    return targets.pop() if len(targets) == 1 else None


def _cast(tensor: ir.TensorProtocol, target: ir.DataType) -> ir.LazyTensor:
    def compute() -> ir.Tensor:
        with np.errstate(over="ignore"):  # to infinity, as Cast does
            array = tensor.numpy().astype(target.numpy())
        return ir.Tensor(array, dtype=target, name=tensor.name)

    return ir.LazyTensor(compute, dtype=target, shape=tensor.shape, name=tensor.name)
