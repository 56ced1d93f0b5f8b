"""Write a graph and its weights so that both appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from f3prune.core.errors import ExportError, InputError

_TEMPORARY = ".tmp-"

GRAPH = "denoiser.onnx"
DATA = "denoiser.onnx.data"


@contextlib.contextmanager
def appearing(directory: Path) -> Iterator[Path]:
    """Yield a scratch directory; when the block ends well, the graph written there takes its place in ``directory``.

    An older graph is removed before the weights change, so that at no moment a graph stands beside weights that are not
    its own.

    Raises:
        InputError: ``directory`` cannot be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=directory))
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written ({error.strerror}): give a directory you can write to"
        ) from error
    try:
        yield scratch
        for name in (GRAPH, DATA):
            if (scratch / name).exists():
                _flush(scratch / name)
        (directory / GRAPH).unlink(missing_ok=True)
        (directory / DATA).unlink(missing_ok=True)
        for name in (DATA, GRAPH):
            if (scratch / name).exists():
                os.replace(scratch / name, directory / name)
        _flush(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def save(model: ir.Model, scratch: Path) -> Path:
    """Write ``model`` with its weights in a file of their own, and check it.

    Does:
        weights go from the denoiser's memory to the file one by one.

    Raises:
        ExportError: the ONNX checker refuses the file.
    """
    path = scratch / GRAPH
    ir.save(model, path, external_data=DATA)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the ONNX checker refuses the graph: {' '.join(str(error).split())[:300]}") from error
    return path


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
