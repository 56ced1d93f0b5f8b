"""New nodes of a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["NodeWriter"]


class NodeWriter:
    """New nodes in front of ``before``."""

    def __init__(self, graph: ir.Graph, before: ir.Node, stem: str) -> None:
        self.graph, self.before, self.stem, self.count = graph, before, stem, 0

    def add(self, op_type: str, inputs: list[ir.Value], domain: str = "", **attributes: object) -> ir.Value:
        """A node of one output, which is returned."""
        node = ir.node(op_type, inputs, attributes=attributes or None, domain=domain)
        node.outputs[0].name = node.name = self._name()
        node.outputs[0].type = inputs[0].type
        self.graph.insert_before(self.before, node)
        return node.outputs[0]

    def shape(self, value: ir.Value, axes: int) -> ir.Value:
        """Sizes of the first axes of a value."""
        found = self.add("Shape", [value], end=axes)
        found.type = ir.TensorType(ir.DataType.INT64)
        return found

    def constant(self, values: np.ndarray) -> ir.Value:
        """An initializer."""
        value = ir.Value(name=self._name(), const_value=ir.Tensor(values))
        value.const_value.name = value.name
        value.type, value.shape = ir.TensorType(value.const_value.dtype), value.const_value.shape
        self.graph.initializers[value.name] = value
        return value

    def _name(self) -> str:
        self.count += 1
        return f"{self.stem}/{self.count}"
