"""What a graph costs: floating-point operations of its matrix products, node by node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from f3prune.exporter.costs._concrete_shapes import concrete_shapes, load_graph
from f3prune.exporter.costs._node_costs import PRODUCTS, product_flops
from f3prune.exporter.node_names import module_of


@dataclass(frozen=True)
class NodeCost:
    """Attributes:
    name: of the node.
    operator: its type.
    module: qualified name of the module that it came from; empty for the denoiser's own forward.
    matmul_flops: operations of a matrix product, convolution or attention, two for a multiply-add; 0 for the rest.
    """

    name: str
    operator: str
    module: str
    matmul_flops: int


@dataclass(frozen=True)
class GraphCosts:
    """Costs of one run of a graph.

    Attributes:
        sizes: of the symbolic dimensions.
        nodes: in the order of the graph. What depends on constants alone costs nothing: runtimes compute it once.
    """

    sizes: Mapping[str, int]
    nodes: tuple[NodeCost, ...]

    @property
    def matmul_flops(self) -> int:
        """Operations of matrix products, convolutions and attention."""
        return sum(node.matmul_flops for node in self.nodes)


def graph_costs(graph: Path | str | onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> GraphCosts:
    """Count one run of an exported graph, or of an engine's ONNX file made from it.

    Nothing is run and no weights are read: shapes follow by inference. Nodes are attributed by their names
    (``f3prune.exporter.node_names``); one without a module in its name belongs where what it reads comes from.

    Args:
        graph: an ``.onnx`` file, or a model.
        sizes: of the symbolic dimensions, ``{"batch": 2, "text": 226}``.

    Raises:
        InputError: a symbolic dimension has no size.
        ArtifactError: the file cannot be read, or its shapes do not follow.
    """
    model = graph if isinstance(graph, onnx.ModelProto) else load_graph(graph)
    sizes = dict(sizes or {})
    tensors = concrete_shapes(model, sizes)
    nodes = list(model.graph.node)
    constants = _constants(nodes, {tensor.name for tensor in model.graph.initializer})
    modules = _modules(nodes)
    found = []
    for node in nodes:
        outputs = [name for name in node.output if name]
        inputs = [tensors[name] if name else None for name in node.input]
        flops = 0 if constants.issuperset(outputs) else product_flops(node, inputs, tensors[outputs[0]])
        found.append(NodeCost(node.name, node.op_type, modules[id(node)], flops))
    return GraphCosts(sizes, tuple(found))


def _constants(nodes: Iterable[Any], initializers: set[str]) -> set[str]:
    """Values that no input of the graph has a part in."""
    found = set(initializers)
    for node in nodes:
        if all(name in found for name in node.input if name):
            found.update(name for name in node.output if name)
    return found


def _modules(nodes: Sequence[Any]) -> dict[int, str]:
    """The module of every node, by identity.

    A product in the denoiser's own forward is attention of a module that was not called as one (CogVideo's cached
    steps): it belongs where its first operand was made.
    """
    producers: dict[str, Any] = {}
    found: dict[int, str] = {}
    for node in nodes:
        module = module_of(node.name)
        if module is None or (not module and node.op_type in PRODUCTS):
            module = _source_module(node, producers, found) or module or ""
        found[id(node)] = module
        producers.update({name: node for name in node.output if name})
    return found


def _source_module(node: Any, producers: Mapping[str, Any], modules: Mapping[int, str]) -> str:
    for name in node.input:
        source = producers.get(name)
        while source is not None:
            if module := modules[id(source)]:
                return module
            source = next((producers[other] for other in source.input if other in producers), None)
    return ""
