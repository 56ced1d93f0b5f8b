"""A float32 version of a bfloat16 graph, for a runtime without bfloat16 operators."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

_BF16, _FP32 = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def save_as_float32(path: Path, directory: Path) -> Path:
    """Write the graph at ``path`` to ``directory`` with every bfloat16 value as float32.

    Does:
        weights are widened one at a time while they are written; Cast and Constant nodes and the types of inputs,
        outputs and intermediate values follow.

    Ensures:
        the same nodes and the same weights; only the rounding of intermediate results to bfloat16 is gone.
    """
    model = ir.load(path)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _widen(value)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:
            _widen(value)
        for attribute in tuple(node.attributes.values()):
            if attribute.name == "to" and attribute.type == ir.AttributeType.INT and attribute.as_int() == _BF16:
                node.attributes["to"] = ir.AttrInt64("to", int(_FP32))
            elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _BF16:
                node.attributes[attribute.name] = ir.AttrTensor(attribute.name, _widened(attribute.as_tensor()))
    target = directory / path.name
    ir.save(model, target, external_data=f"{target.name}.data")
    return target


def _widen(value: ir.Value) -> None:
    if value.dtype == _BF16:
        value.dtype = _FP32
    tensor = value.const_value
    if tensor is not None and tensor.dtype == _BF16:
        value.const_value = _widened(tensor)


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    def compute() -> ir.Tensor:
        return ir.Tensor(tensor.numpy().astype("float32"), name=tensor.name)

    return ir.LazyTensor(compute, dtype=_FP32, shape=tensor.shape, name=tensor.name)
