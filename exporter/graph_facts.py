"""Count what a graph is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir


@dataclass(frozen=True)
class GraphFacts:
    """Attributes:
    nodes: operators in the graph, subgraphs included.
    operators: how many of each type, by name.
    parameters: numbers held by initializers of floating-point type.
    weight_bytes: size of all initializers.
    """

    nodes: int
    operators: Mapping[str, int]
    parameters: int
    weight_bytes: int


def graph_facts(model: ir.Model | Path | str) -> GraphFacts:
    """Facts of a model in memory or of an ``.onnx`` file, whose weights are not read."""
    if not isinstance(model, ir.Model):
        model = ir.load(model)
    counts = Counter(str(node.op_type) for node in ir.traversal.RecursiveGraphIterator(model.graph))
    tensors = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    return GraphFacts(
        nodes=sum(counts.values()),
        operators=dict(sorted(counts.items())),
        parameters=sum(int(tensor.size) for tensor in tensors if tensor.dtype.is_floating_point()),
        weight_bytes=sum(int(tensor.nbytes) for tensor in tensors),
    )
