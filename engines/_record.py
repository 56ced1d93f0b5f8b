"""``engine.json``: everything an engine depends on, and the hashes that prove its files are those that were built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from f3prune.core.atomic_files import atomic_write, canonical_json, sha256_file, sha256_text
from f3prune.core.errors import ArtifactError
from f3prune.core.json_values import from_json_values, json_values, parse_json
from f3prune.core.places import read_regular
from f3prune.core.tensors import TensorSpec
from f3prune.engines._graph import constants_of

RECORD = "engine.json"
VERSION = 2


@dataclass(frozen=True)
class EngineRecord:
    """What an engine was built from and what files it is.

    Attributes:
        backend: ``onnxruntime``, ``tensorrt-rtx`` or ``tensorrt``.
        backend_version: version of the library that built it.
        graph: SHA-256 of the ONNX file.
        weights: SHA-256 of its external data files, by name.
        masks_digest: of the masks the graph was pruned with; None where nobody said.
        dtype: ``fp32``, ``fp16`` or ``bf16``.
        ranges: ``[min, opt, max]`` of each symbolic dimension.
        profiles: ``[min, opt, max]`` shapes of each input that has a symbolic dimension.
        compute_capabilities: GPUs that a TensorRT-RTX engine runs on, ``12.0+`` for 12.0 and later; else empty.
        device: the GPU a ``tensorrt`` engine was timed on; empty for the others.
        flags: builder or session options.
        inputs: of the graph.
        outputs: of the graph.
        metadata: the graph's ``f3prune.*`` properties.
        files: ``name -> {"sha256", "bytes"}``.
        built: what the build cost: ``seconds``, ``peak_bytes``; and what it made: ``attention_fused``, a number,
            ``attention_unfused``, names, and ``scratch_bytes`` of TensorRT's execution contexts.
        key: SHA-256 over everything above from ``backend`` to ``flags``: the engine cache key.
        origin: how it came into its directory: ``built``, ``cache``, ``kept`` or ``read``; not stored.
    """

    backend: str
    backend_version: str
    graph: str
    weights: dict[str, str]
    masks_digest: str | None
    dtype: str
    ranges: dict[str, list[int]]
    profiles: dict[str, list[list[int]]]
    compute_capabilities: list[str]
    device: str
    flags: dict[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: dict[str, str]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    built: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION
    origin: str = field(default="read", compare=False)

    @property
    def key(self) -> str:
        """SHA-256 over everything the engine depends on, weights and masks included."""
        return sha256_text(canonical_json({name: getattr(self, name) for name in _KEY_FIELDS}))

    @property
    def constants(self) -> dict[str, Any]:
        """Forward arguments that were baked into the graph."""
        return constants_of(self.metadata)

    def to_json(self) -> str:
        """JSON text; ``digest`` covers all the rest, so that an edited record is noticed."""
        values = json_values(self)
        del values["origin"]
        values["key"] = self.key
        values["digest"] = sha256_text(canonical_json(values))
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = RECORD) -> EngineRecord:
        """Read :meth:`to_json`'s text.

        Raises:
            ArtifactError: it is no such text, was altered, or has another version.
        """
        try:
            values: dict[str, Any] = parse_json(text)
            version = values.get("version")
            if version != VERSION:
                raise ArtifactError(f"{where} has version {version}, expected {VERSION}: run `build(...)` again")
            digest = values.pop("digest")
            if digest != sha256_text(canonical_json(values)):
                raise ArtifactError(f"{where} was altered after it was written: run `build(...)` again")
            key = values.pop("key")
            record = from_json_values(cls, {**values, "origin": "read"})
            for name in record.files:
                if Path(name).is_absolute() or ".." in Path(name).parts:
                    raise ArtifactError(f"{where} names a file outside its directory ({name}): run `build(...)` again")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(f"{where} is no engine record or was cut short: run `build(...)` again") from error
        if record.key != key:
            raise ArtifactError(f"{where} was altered after it was written: run `build(...)` again")
        return record


_KEY_FIELDS = (
    "version",
    "backend",
    "backend_version",
    "graph",
    "weights",
    "masks_digest",
    "dtype",
    "ranges",
    "profiles",
    "compute_capabilities",
    "device",
    "flags",
)


def write_record(record: EngineRecord, directory: Path) -> None:
    """Write ``engine.json``: the last file of an engine directory, so that its presence means the rest is whole."""
    with atomic_write(directory / RECORD) as temporary:
        temporary.write_text(record.to_json(), encoding="utf-8")


def read_record(directory: Path | str) -> EngineRecord:
    """Read ``directory/engine.json``.

    Raises:
        ArtifactError: there is none (the build never finished), or it cannot be trusted.
    """
    path = Path(directory) / RECORD
    if not path.is_file():
        raise ArtifactError(f"no finished engine in {directory} ({RECORD} is missing): run `build(...)` first")
    try:
        text = read_regular(path).decode()
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not text: run `build(...)` again") from error
    return EngineRecord.from_json(text, str(path))


def verify_files(record: EngineRecord, directory: Path | str) -> None:
    """Check size and hash of every file that the record lists.

    Raises:
        ArtifactError: a file is missing, cut short or altered.
    """
    for name, entry in record.files.items():
        path = Path(directory) / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing: run `build(...)` again")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise ArtifactError(
                f"{path} has {size} bytes, expected {entry['bytes']}: it was cut short or altered; "
                f"run `build(...)` again"
            )
        if sha256_file(path) != entry["sha256"]:
            raise ArtifactError(
                f"{path} does not match the SHA-256 in {RECORD}: it was altered; run `build(...)` again"
            )


def describe_files(directory: Path, names: Mapping[str, Path] | list[str]) -> dict[str, dict[str, Any]]:
    """``name -> {"sha256", "bytes"}`` for files of ``directory``."""
    return {
        name: {"sha256": sha256_file(directory / name), "bytes": (directory / name).stat().st_size}
        for name in sorted(names)
    }
