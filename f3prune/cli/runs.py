"""Opening and locking a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from f3prune.core.errors import InputError
from f3prune.core.progress import Reporter, RichReporter
from f3prune.core.run_directory import RunDirectory


@contextlib.contextmanager
def opened(path: Path, model: str | None = None) -> Iterator[tuple[RunDirectory, Reporter]]:
    """An existing run, locked, with a progress display; ``model`` is where its MODEL is now, if it was moved."""
    directory = RunDirectory.open(path, model)
    with directory.lock(), RichReporter() as reporter:
        yield directory, reporter


@contextlib.contextmanager
def read(path: Path, model: str | None = None) -> Iterator[tuple[RunDirectory, Reporter]]:
    """An existing run that others may read at the same time, with a progress display."""
    directory = RunDirectory.open(path, model)
    with directory.reading(), RichReporter() as reporter:
        yield directory, reporter


@contextlib.contextmanager
def written(path: Path) -> Iterator[tuple[RunDirectory, Reporter]]:
    """A run to write to, locked, with a progress display. A new directory is removed again if nothing came of it."""
    existed = path.exists()
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    directory = RunDirectory.create(path)
    with directory.lock():
        try:
            with RichReporter() as reporter:
                yield directory, reporter
        except BaseException:
            # Only who holds the lock may: the directory may be another process's by now.
            if not existed:
                directory.remove_if_empty()
                for parent in missing:
                    with contextlib.suppress(OSError):
                        parent.rmdir()
            raise


def kept(made: bool) -> str:
    """What stands behind the name of a file that was not written again."""
    return "" if made else " (up to date)"


def write_text(file: Path, text: str) -> None:
    """Write a file that was asked for beside the run's own, whole or not at all.

    Raises:
        InputError: it cannot be written, or something else than a regular file is there.
    """
    from f3prune.core.atomic_files import atomic_write

    try:
        with atomic_write(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror}): give another place") from error
