"""What became of every attention in an engine: one kernel that never holds the scores, or several that do.

The builder prints the layers of a finished engine to its log, with the ONNX nodes that each of them computes
(``profiling_verbosity=DETAILED``, which Polygraphy sets). That needs no GPU. The engine inspector says the same of an
engine that was loaded, and loading needs a driver.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEADING = "Layers:"
_LINE = re.compile(r"Name: (?P<name>.*?), LayerType: ")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_SCRATCH = re.compile(r"Total Activation Memory: (\d+) bytes")
_FUSED_KERNEL = "mha"
"""In the names of TensorRT's fused attention kernels (``_gemm_mha_v2``)."""
_STEPS = 4
"""Between a softmax and the product that it weighs: a Cast, a Where, a Reshape."""


@dataclass(frozen=True)
class Layer:
    """A layer of an engine and the ONNX nodes that it computes, as far as the builder tracked them."""

    name: str
    nodes: frozenset[str]


@dataclass(frozen=True)
class FusedAttention:
    """The attentions of a graph by what the engine makes of them, by the name of their Softmax or Attention node."""

    fused: tuple[str, ...]
    unfused: tuple[str, ...]


class LayerLog:
    """Picks what is about the finished engine from the builder's messages.

    Attributes:
        layers: of the engine; None as long as nothing was printed.
        scratch_bytes: device memory of one execution context, for the largest shapes; None likewise.
    """

    def __init__(self) -> None:
        self.layers: tuple[Layer, ...] | None = None
        self.scratch_bytes: int | None = None

    def __call__(self, message: str) -> None:
        """Look at one message."""
        if message.startswith(_HEADING):
            lines = message.splitlines()[1:]
            found = ((match, line) for line in lines if (match := _LINE.match(line)))
            self.layers = tuple(Layer(match["name"], _nodes(line)) for match, line in found)
        elif match := _SCRATCH.search(message):
            self.scratch_bytes = int(match[1])


def inspected_layers(trt: Any, engine: Any) -> tuple[Layer, ...]:
    """The layers of a loaded engine, of its inspector."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return tuple(
        Layer(str(entry["Name"]), _nodes(str(entry.get("Metadata", ""))))
        for entry in json.loads(text)["Layers"]
        if isinstance(entry, Mapping)
    )


def _nodes(text: str) -> frozenset[str]:
    return frozenset(_NODE.findall(text))


def attentions_of(onnx_path: Path) -> dict[str, str | None]:
    """Every attention of a graph: the name of its Softmax, and of the MatMul that weighs the values.

    An ``Attention`` operator is both, and has None there. Weights are not read.
    """
    import onnx

    graph = onnx.load(str(onnx_path), load_external_data=False).graph
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, str | None] = {}
    for node in graph.node:
        if node.op_type == "Attention":
            found[node.name] = None
        elif node.op_type == "Softmax" and (product := _product(node.output[0], readers)) is not None:
            found[node.name] = product
    return found


def _product(value: str, readers: Mapping[str, Sequence[Any]], steps: int = _STEPS) -> str | None:
    for node in readers.get(value, ()):
        if node.op_type == "MatMul" and node.input[0] == value:
            return str(node.name)
        if steps and (found := _product(node.output[0], readers, steps - 1)) is not None:
            return found
    return None


def fused_attention(layers: Iterable[Layer], attentions: Mapping[str, str | None]) -> FusedAttention:
    """Sort attentions by whether one layer computes both the softmax and the product with the values.

    An attention that no layer names counts as unfused: nothing shows that it is.
    """
    layers = tuple(layers)
    fused: list[str] = []
    unfused: list[str] = []
    for name, product in attentions.items():
        inside = any(
            name in layer.nodes and (product in layer.nodes or (product is None and _FUSED_KERNEL in layer.name))
            for layer in layers
        )
        (fused if inside else unfused).append(name)
    return FusedAttention(tuple(fused), tuple(unfused))
