"""What a graph costs: floating-point operations and bytes of every node, by operator, by site and by kind."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import onnx

from f3prune.exporter.costs._concrete_shapes import Tensor, concrete_shapes, load_graph
from f3prune.exporter.costs._node_costs import ATTENTION, PRODUCTS, elementwise_flops, moved, product_flops
from f3prune.exporter.metadata import PREFIX
from f3prune.exporter.node_names import module_of

Kind = Literal["site attention", "site projections", "rest"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REST = "rest"

_SCORES_PASS = frozenset(
    {"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Reshape", "Softmax", "Sub", "Tanh", "Where"}
)


@dataclass(frozen=True)
class Cost:
    """Attributes:
    flops: floating-point operations, two for a multiply-add.
    matmul_flops: of them, those of matrix products, convolutions and attention.
    bytes: read and written, each node for itself: nothing stays in a cache from one node to the next.
    score_bytes: of them, matrices of attention scores and probabilities, which fused attention never writes.
    """

    flops: int = 0
    matmul_flops: int = 0
    bytes: int = 0
    score_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.matmul_flops + other.matmul_flops,
            self.bytes + other.bytes,
            self.score_bytes + other.score_bytes,
        )


@dataclass(frozen=True)
class NodeCost:
    """Attributes:
    name: of the node.
    operator: its type.
    module: qualified name of the module that it came from; empty for the denoiser's own forward.
    site: name of the site that it belongs to, ``rest`` for none.
    kind: ``site attention`` for scores, softmax and values of a site, ``site projections`` for its products with
        weights, ``rest`` for everything else.
    cost: what it takes.
    """

    name: str
    operator: str
    module: str
    site: str
    kind: Kind
    cost: Cost


@dataclass(frozen=True)
class GraphCosts:
    """Costs of one run of a graph.

    Attributes:
        sizes: of the symbolic dimensions.
        sites: names, in the order of the denoiser's modules.
        nodes: in the order of the graph. What depends on constants alone costs nothing: runtimes compute it once.
    """

    sizes: Mapping[str, int]
    sites: tuple[str, ...]
    nodes: tuple[NodeCost, ...]

    @cached_property
    def total(self) -> Cost:
        """The whole graph."""
        return sum((node.cost for node in self.nodes), Cost())

    @property
    def matmul_flops(self) -> int:
        """Operations of matrix products, convolutions and attention."""
        return self.total.matmul_flops

    @cached_property
    def by_operator(self) -> dict[str, Cost]:
        """Costs by operator type, most operations first."""
        found = self._by(lambda node: node.operator)
        return dict(sorted(found.items(), key=lambda item: (-item[1].flops, -item[1].bytes, item[0])))

    @cached_property
    def by_site(self) -> dict[str, Cost]:
        """Costs by site in order, then ``rest``."""
        found = self._by(lambda node: node.site)
        return {name: found.get(name, Cost()) for name in (*self.sites, REST)}

    @cached_property
    def by_kind(self) -> dict[str, Cost]:
        """Costs by :attr:`NodeCost.kind`."""
        found = self._by(lambda node: node.kind)
        return {kind: found.get(kind, Cost()) for kind in KINDS}

    def _by(self, key: Callable[[NodeCost], str]) -> dict[str, Cost]:
        found: dict[str, Cost] = defaultdict(Cost)
        for node in self.nodes:
            found[key(node)] += node.cost
        return dict(found)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without the single nodes."""
        return {
            "sizes": dict(self.sizes),
            "matmul_flops": self.matmul_flops,
            "total": asdict(self.total),
            **{
                name: {key: asdict(cost) for key, cost in getattr(self, name).items()}
                for name in ("by_operator", "by_site", "by_kind")
            },
        }


def graph_costs(
    graph: Path | str | onnx.ModelProto, sizes: Mapping[str, int] | None = None, sites: Sequence[str] | None = None
) -> GraphCosts:
    """Count one run of an exported graph, or of an engine's ONNX file made from it.

    Nothing is run and no weights are read: shapes follow by inference. Nodes are attributed by their names
    (``f3prune.exporter.node_names``); one without a module in its name belongs where what it reads comes from.

    Args:
        graph: an ``.onnx`` file, or a model.
        sizes: of the symbolic dimensions, ``{"batch": 2, "text": 226}``.
        sites: their names; by default those that the export listed in the graph's metadata.

    Raises:
        InputError: a symbolic dimension has no size.
        ArtifactError: the file cannot be read, or its shapes do not follow.
    """
    model = graph if isinstance(graph, onnx.ModelProto) else load_graph(graph)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    names = tuple(sites if sites is not None else json.loads(properties.get(f"{PREFIX}sites", "[]")))
    sizes = dict(sizes or {})
    tensors = concrete_shapes(model, sizes)
    nodes = list(model.graph.node)
    constants = _constants(nodes, {tensor.name for tensor in model.graph.initializer})
    scores = _scores(nodes, tensors)
    modules = _modules(nodes)
    found = []
    for node in nodes:
        inputs = {name: tensors[name] for name in node.input if name}
        outputs = {name: tensors[name] for name in node.output if name}
        cost = Cost() if constants.issuperset(outputs) else _cost(node, inputs, outputs, tensors, scores)
        module = modules[id(node)]
        site = _site(module, names)
        found.append(
            NodeCost(node.name, node.op_type, module, site, _kind(node, site, constants, scores), cost),
        )
    return GraphCosts(sizes, names, tuple(found))


def _cost(
    node: Any,
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    scores: frozenset[str],
) -> Cost:
    output = next(iter(outputs.values()))
    products = product_flops(node, [tensors[name] if name else None for name in node.input], output)
    touched = moved(node.op_type, inputs, outputs)
    return Cost(
        flops=products + elementwise_flops(node.op_type, output),
        matmul_flops=products,
        bytes=sum(touched.values()),
        score_bytes=sum(size for name, size in touched.items() if name in scores),
    )


def _constants(nodes: Iterable[Any], initializers: set[str]) -> set[str]:
    """Values that no input of the graph has a part in."""
    found = set(initializers)
    for node in nodes:
        if all(name in found for name in node.input if name):
            found.update(name for name in node.output if name)
    return found


def _scores(nodes: Sequence[Any], tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Values between the two products of an attention that is written out: MatMul, Softmax, MatMul."""
    producers = {name: node for node in nodes for name in node.output if name}
    consumers: dict[str, list[Any]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            consumers[name].append(node)
    found: set[str] = set()
    for softmax in (node for node in nodes if node.op_type == "Softmax"):
        elements = tensors[softmax.input[0]].elements
        before = _back_to_product(softmax.input[0], producers, tensors, elements)
        after = _on_to_product(softmax.output[0], consumers, tensors, elements)
        if before and after:
            found |= before | after
    return frozenset(found)


def _back_to_product(name: str, producers: Mapping[str, Any], tensors: Mapping[str, Tensor], elements: int) -> set[str]:
    """Values of this size from ``name`` back to a product's output; none if there is no product."""
    node = producers.get(name)
    if node is None or tensors[name].elements != elements:
        return set()
    if node.op_type in {"MatMul", "FusedMatMul"}:
        return {name}
    if node.op_type not in _SCORES_PASS:
        return set()
    sources = [source for source in node.input if source]
    path = set[str]().union(*(_back_to_product(source, producers, tensors, elements) for source in sources))
    return path | {name} if path else set()


def _on_to_product(
    name: str, consumers: Mapping[str, list[Any]], tensors: Mapping[str, Tensor], elements: int
) -> set[str]:
    """Values of this size from ``name`` on to a product that reads them; none if there is no product."""
    found: set[str] = set()
    for node in consumers.get(name, []):
        if node.op_type in {"MatMul", "FusedMatMul"}:
            found.add(name)
        elif node.op_type in _SCORES_PASS and tensors[node.output[0]].elements == elements:
            path = _on_to_product(node.output[0], consumers, tensors, elements)
            found |= path | {name} if path else set()
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


def _site(module: str, sites: Sequence[str]) -> str:
    inside = [name for name in sites if module == name or module.startswith(f"{name}.")]
    return max(inside, key=len, default=REST)


def _kind(node: Any, site: str, constants: set[str], scores: frozenset[str]) -> Kind:
    if site == REST:
        return "rest"
    if node.op_type in ATTENTION or scores.intersection((*node.input, *node.output)):
        return "site attention"
    if node.op_type in PRODUCTS:
        return "site projections" if constants.intersection(node.input) else "site attention"
    return "rest"
