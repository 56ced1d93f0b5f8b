"""Every shape of a graph as numbers, by inference alone: nothing runs and no weights are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference

from f3prune.core.errors import ArtifactError, InputError, reason_of

# Operators whose first output has the shape of their first input, and which shape inference does not know: those of
# ONNX Runtime, and GroupNormalization, a function whose body it does not follow in strict mode.
_SHAPED_LIKE_FIRST_INPUT = frozenset(
    {
        "BiasGelu",
        "FastGelu",
        "Gelu",
        "GroupNormalization",
        "MultiHeadAttention",
        "QuickGelu",
        "RotaryEmbedding",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
_DIMENSION = re.compile(r"(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*)(?:\s*\*\s*(\d+))?")


_SIZE_OPERATORS = frozenset(
    {"Add", "Cast", "Concat", "Div", "Gather", "Mul", "Reshape", "Slice", "Squeeze", "Unsqueeze"}
)
_MOST_SIZES = 64


@dataclass(frozen=True)
class Tensor:
    """Shape of one value."""

    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)


def load_graph(path: Path | str) -> onnx.ModelProto:
    """Read the graph of an ``.onnx`` file without its weights.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf and the file system raise many kinds
        reason = reason_of(error, 120)
        raise ArtifactError(f"{path} cannot be read as ONNX ({reason}): run `export(...)` again") from error


def concrete_shapes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Shape of every value when the symbolic dimensions have these sizes.

    Raises:
        InputError: a symbolic dimension of an input has no size in ``sizes``, or no positive one.
        ArtifactError: shape inference cannot tell a shape.
    """
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"size {size} of dimension {name}: expected at least 1")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for value in graph.input:
        _fix(value, sizes)
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        unknown = node.domain == "com.microsoft" or node.op_type == "GroupNormalization"
        if unknown and node.op_type in _SHAPED_LIKE_FIRST_INPUT:
            _stand_in(node)
        elif node.domain == "com.microsoft" and node.op_type == "FusedMatMul":
            _plain_product(node)
    found = _inferred(copy)
    # Inference follows sizes through few operators; computing them from the shapes found so far carries it further.
    while _settle_sizes(graph, found):
        found = _inferred(copy)
    for node in model.graph.node:
        for name in node.output:
            if name and name not in found:
                raise ArtifactError(
                    f"the shape of {name}, output of {node.op_type} {node.name}, does not follow from the inputs' "
                    f"shapes: export with fixed sizes"
                )
    return found


def _inferred(model: onnx.ModelProto) -> dict[str, Tensor]:
    try:
        graph = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        reason = reason_of(error)
        raise ArtifactError(f"the graph's shapes cannot be inferred ({reason}): run `export(...)` again") from error
    found = {tensor.name: Tensor(tuple(tensor.dims)) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
        if kind.HasField("shape") and -1 not in shape:
            found[value.name] = Tensor(tuple(shape))
    return found


def _settle_sizes(graph: onnx.GraphProto, found: Mapping[str, Tensor]) -> bool:
    """Replace what computes sizes by its result as far as it is known; whether a shape that was missing may follow."""
    if all(name in found for node in graph.node for name in node.output if name):
        return False
    known = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if math.prod(tensor.dims) <= _MOST_SIZES and tensor.data_location != onnx.TensorProto.EXTERNAL
    }
    settled = []
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in found:
            bounds = {attribute.name: attribute.i for attribute in node.attribute}
            sizes = found[node.input[0]].shape[bounds.get("start") : bounds.get("end")]
            known[node.output[0]] = np.array(sizes, np.int64)
        elif node.op_type in _SIZE_OPERATORS and all(name in known for name in node.input if name):
            evaluator = onnx.reference.ReferenceEvaluator(node)
            known[node.output[0]] = evaluator.run(None, {name: known[name] for name in node.input if name})[0]
        else:
            continue
        settled.append(node)
    for node in settled:
        graph.node.remove(node)
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(known[node.output[0]]), node.output[0]))
    return bool(settled)


def _fix(value: Any, sizes: Mapping[str, int]) -> None:
    """Replace the symbolic dimensions of a graph input."""
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_value"):
            continue
        match = _DIMENSION.fullmatch(dim.dim_param)
        if match is None or match[2] not in sizes:
            known = ", ".join(sizes) or "none"
            raise InputError(
                f"input {value.name} has the symbolic dimension {dim.dim_param!r}, and sizes are given for {known}: "
                f"give its size"
            )
        dim.dim_value = int(match[1] or 1) * sizes[match[2]] * int(match[3] or 1)


def _stand_in(node: Any) -> None:
    first = node.input[0]
    del node.input[1:], node.output[1:], node.attribute[:]
    node.op_type, node.domain, node.input[0] = "Identity", "", first


def _plain_product(node: Any) -> None:
    """ONNX Runtime's MatMul with transposed operands, as the Einsum it is."""
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    left = "...ji" if flags.get("transA") else "...ij"
    right = "...kj" if flags.get("transB") else "...jk"
    del node.attribute[:]
    node.op_type, node.domain = "Einsum", ""
    node.attribute.append(onnx.helper.make_attribute("equation", f"{left},{right}->...ik"))
