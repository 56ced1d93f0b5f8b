"""Read an exported graph: what it takes, what it was made from, and the hashes of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from f3prune.core.atomic_files import sha256_file
from f3prune.core.errors import ArtifactError
from f3prune.core.json_values import parse_json
from f3prune.core.tensors import ELEMENT_TYPES, METADATA_PREFIX, TensorSpec, short_name


@dataclass(frozen=True)
class Graph:
    """An ONNX file on disk.

    Attributes:
        path: of the ``.onnx`` file.
        sha256: of the ``.onnx`` file's bytes.
        weights: external data files, ``location relative to the graph -> SHA-256``.
        inputs: of the graph, without initializers.
        outputs: of the graph.
        metadata: the graph's ``f3prune.*`` properties, prefix kept.
        dtype: ``fp32``, ``fp16`` or ``bf16``.
    """

    path: Path
    sha256: str
    weights: dict[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: dict[str, str]
    dtype: str

    @property
    def masks_digest(self) -> str | None:
        """Digest of the masks that the graph was pruned with, when its exporter wrote it."""
        return self.metadata.get(f"{METADATA_PREFIX}masks_digest") or None

    @property
    def constants(self) -> dict[str, Any]:
        """Forward arguments that were baked into the graph."""
        return constants_of(self.metadata)


def constants_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The ``f3prune.constants`` property, parsed.

    Raises:
        ArtifactError: it is not a JSON object.
    """
    text = metadata.get(f"{METADATA_PREFIX}constants") or "{}"
    try:
        constants = parse_json(text)
    except ValueError as error:
        raise ArtifactError(
            f"the graph's f3prune.constants is no JSON: {text[:80]!r}; run `export(...)` again"
        ) from error
    if not isinstance(constants, dict):
        raise ArtifactError(f"the graph's f3prune.constants is no JSON object: {text[:80]!r}; run `export(...)` again")
    return constants


def read_graph(path: Path | str) -> Graph:
    """Hash and read ``path`` without loading its weights.

    Raises:
        ArtifactError: the file or one of its data files is missing, cut short, or no ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"no ONNX graph at {path}: run `export(...)` first")
    digest = sha256_file(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ArtifactError(f"{path} is no ONNX graph, or was cut short: run `export(...)` again") from error
    if not model.graph.node or not model.graph.output:
        raise ArtifactError(f"{path} holds an empty graph: run `export(...)` again")
    weights = {}
    for location, end in sorted(_external_data(model).items()):
        data = _inside(path, location)
        if not data.is_file():
            raise ArtifactError(f"{path.name} needs its weights in {data}, which is missing: run `export(...)` again")
        if data.stat().st_size < end:
            raise ArtifactError(
                f"{data} has {data.stat().st_size} bytes, but {path.name} needs {end}: "
                f"it was cut short; run `export(...)` again"
            )
        weights[location] = sha256_file(data)
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_spec(value) for value in model.graph.input if value.name not in initializers)
    outputs = tuple(_spec(value) for value in model.graph.output)
    metadata = {item.key: item.value for item in model.metadata_props if item.key.startswith(METADATA_PREFIX)}
    dtype = metadata.get(f"{METADATA_PREFIX}dtype") or short_name(outputs[0].dtype)
    return Graph(path, digest, weights, inputs, outputs, metadata, dtype)


def _spec(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    if tensor.elem_type not in ELEMENT_TYPES:
        raise ArtifactError(
            f"{value.name} has ONNX element type {tensor.elem_type}, which no engine here takes; "
            f"run `export(...)` again"
        )
    shape = tuple(
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or f"{value.name}_{axis}"
        for axis, dimension in enumerate(tensor.shape.dim)
    )
    return TensorSpec(value.name, ELEMENT_TYPES[tensor.elem_type], shape)


def _external_data(model: Any) -> dict[str, int]:
    """``location -> bytes the graph reads of it`` over every tensor that lies outside the graph file."""
    from onnx import TensorProto

    ends: dict[str, int] = {}
    for tensor in tensors_of(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entry = {item.key: item.value for item in tensor.external_data}
        end = int(entry.get("offset", 0)) + int(entry.get("length", 0))
        ends[entry["location"]] = max(ends.get(entry["location"], 0), end)
    return ends


def tensors_of(model: Any) -> Iterator[Any]:
    """Every tensor that a model holds: initializers and those in attributes, subgraphs and functions included."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)


def _inside(path: Path, location: str) -> Path:
    # A graph names its data files itself: it must not be able to name any other file of this machine.
    relative = Path(location)
    if relative.is_absolute() or ".." in relative.parts:
        raise ArtifactError(
            f"{path.name} names weights outside its directory ({location}): refused; run `export(...)` again"
        )
    return path.parent / relative
