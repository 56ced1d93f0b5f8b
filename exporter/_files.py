"""Write a graph and its weights so that both appear whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from f3prune.core.atomic_files import atomic_files
from f3prune.core.errors import ExportError, InputError, reason_of
from f3prune.core.tensors import DATA_FILE, GRAPH_FILE


@contextlib.contextmanager
def appearing(directory: Path) -> Iterator[Path]:
    """Yield a scratch directory; when the block ends well, the graph written there takes its place in ``directory``.

    Raises:
        InputError: ``directory`` cannot be made or written.
    """
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(atomic_files(directory, GRAPH_FILE, DATA_FILE))
        except OSError as error:
            raise InputError(
                f"{directory} cannot be written ({error.strerror}): give a directory you can write to"
            ) from error
        yield scratch


def save(model: ir.Model, scratch: Path) -> Path:
    """Write ``model`` with its weights in a file of their own, and check it.

    Does:
        weights go from the denoiser's memory to the file one by one.

    Raises:
        ExportError: the ONNX checker refuses the file.
    """
    path = scratch / GRAPH_FILE
    ir.save(model, path, external_data=DATA_FILE)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the ONNX checker refuses the graph: {reason_of(error, 300)}") from error
    return path
