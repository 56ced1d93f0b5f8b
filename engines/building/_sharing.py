"""One file of weights for the ONNX Runtime engines of all stages, on disk and in memory.

Stages differ in a few tensors. The file holds each distinct tensor once; every engine's graph refers into it, and the
engines' files are hard links of it. It also holds the form that ONNX Runtime's CPU kernels pack weights into. A session
packs its weights anew and compares; those that the file has already it maps instead of keeping its own, so that all
sessions share one copy in the page cache. A processor that packs differently keeps its own: the file stays right.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from f3prune.core.atomic_files import atomic_write, link_file
from f3prune.core.errors import BuildError, InputError, reason_of
from f3prune.core.tensors import DATA_FILE, GRAPH_FILE
from f3prune.engines._graph import tensors_of
from f3prune.engines._record import RECORD, EngineRecord, describe_files, read_record, verify_files, write_record
from f3prune.engines.backends.onnxruntime import session_options

_PAGE, _LINE = 4096, 64
_PACKED = "prepacked_"
_SMALLEST_PACKED = 128


def share_weights(directories: Sequence[Path]) -> dict[str, int]:
    """Give finished ONNX Runtime engines one file of weights.

    Args:
        directories: of the engines, each written by ``build_engine``.

    Returns:
        ``bytes_before`` and ``bytes_after``: of all weights on disk.

    Raises:
        ArtifactError: an engine is unfinished, cut short or altered.
        BuildError: ONNX Runtime cannot write its packed weights.
        InputError: an engine is of another backend.
    """
    records = [read_record(directory) for directory in directories]
    for directory, record in zip(directories, records, strict=True):
        if record.backend != "onnxruntime":
            raise InputError(
                f"{directory} is an engine of {record.backend}: only onnxruntime's read weights from a file"
            )
        verify_files(record, directory)
    before = _bytes_on_disk(directories, records)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=directories[0].parent) as scratch:
        union = Path(scratch) / DATA_FILE
        graphs = []
        with open(union, "wb") as stream:
            file = _Union(stream)
            for directory, record in zip(directories, records, strict=True):
                graphs.append(_move(directory, record, file, Path(scratch)))
        for directory, record, graph in zip(directories, records, graphs, strict=True):
            _replace(directory, record, graph, union)
    return {"bytes_before": before, "bytes_after": _bytes_on_disk(directories, map(read_record, directories))}


class _Union:
    """A file that holds equal bytes once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._offsets: dict[tuple[int, bytes], int] = {}

    def add(self, data: memoryview) -> int:
        """Where ``data`` is in the file, after appending it if it was not there."""
        key = (len(data), hashlib.sha256(data).digest())
        if key not in self._offsets:
            alignment = _PAGE if len(data) >= _PAGE else _LINE
            self._stream.seek(-self._stream.tell() % alignment, os.SEEK_CUR)
            self._offsets[key] = self._stream.tell()
            self._stream.write(data)
        return self._offsets[key]


def _move(directory: Path, record: EngineRecord, union: _Union, scratch: Path) -> bytes:
    """Put the engine's tensors into ``union``; returns its graph, referring there."""
    import onnx

    model = onnx.load(str(directory / GRAPH_FILE), load_external_data=False)
    packed = _pack(directory, record, scratch)
    for tensor in tensors_of(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entry = _entries(tensor)
        start, length = int(entry.get("offset", 0)), int(entry.get("length", 0))
        places = {
            "location": DATA_FILE,
            "offset": str(union.add(_read(directory / entry["location"], start, length))),
            "length": str(length),
        }
        for name, text in packed.get(tensor.name, {}).items():
            kernel, *blobs = text.split("|")
            moved = [kernel]
            for blob in blobs:
                first, size, *rest = blob.split(";")
                offset = union.add(_read(scratch / "packed.data", int(first), int(size)))
                moved.append(";".join((str(offset), size, *rest)))
            places[name] = "|".join(moved)
        del tensor.external_data[:]
        for name, value in places.items():
            tensor.external_data.add(key=name, value=value)
    return bytes(model.SerializeToString(deterministic=True))


def _pack(directory: Path, record: EngineRecord, scratch: Path) -> dict[str, dict[str, str]]:
    """Let ONNX Runtime write its packed weights to ``scratch``; returns where they are, by initializer."""
    import onnx
    import onnxruntime

    options = session_options(record)
    options.optimized_model_filepath = str(scratch / "packed.onnx")
    for name, value in (
        ("optimized_model_external_initializers_file_name", "packed.data"),
        ("optimized_model_external_initializers_min_size_in_bytes", str(_SMALLEST_PACKED)),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{name}", value)
    for name in ("packed.onnx", "packed.data"):
        (scratch / name).unlink(missing_ok=True)
    try:
        onnxruntime.InferenceSession(str(directory / GRAPH_FILE), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise BuildError(f"onnxruntime cannot pack {directory / GRAPH_FILE}: {reason_of(error, 1000)}") from error
    model = onnx.load(str(scratch / "packed.onnx"), load_external_data=False)
    found = {tensor.name: _entries(tensor) for tensor in model.graph.initializer}
    return {
        name: {key: value for key, value in entries.items() if key.startswith(_PACKED)}
        for name, entries in found.items()
    }


def _entries(tensor: Any) -> dict[str, str]:
    return {item.key: item.value for item in tensor.external_data}


def _read(path: Path, start: int, length: int) -> memoryview:
    if not length:
        return memoryview(b"")
    with open(path, "rb") as stream:
        base = start - start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(stream.fileno(), start - base + length, access=mmap.ACCESS_READ, offset=base)
    return memoryview(mapped)[start - base :]


def _replace(directory: Path, record: EngineRecord, graph: bytes, union: Path) -> None:
    """Put the new graph and the shared file in place; the record goes first and comes back last."""
    (directory / RECORD).unlink()
    for name in record.files:
        (directory / name).unlink()
    link_file(union, directory / DATA_FILE)
    with atomic_write(directory / GRAPH_FILE) as temporary:
        temporary.write_bytes(graph)
    write_record(replace(record, files=describe_files(directory, [GRAPH_FILE, DATA_FILE])), directory)


def _bytes_on_disk(directories: Sequence[Path], records: Any) -> int:
    files: Mapping[tuple[int, int], int] = {
        (status.st_dev, status.st_ino): status.st_size
        for directory, record in zip(directories, records, strict=True)
        for status in ((directory / name).stat() for name in record.files)
    }
    return sum(files.values())
