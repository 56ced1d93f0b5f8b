"""Files and directories that appear whole or not at all, and their hashes. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from f3prune.core.places import absolute, open_regular, refuse_to_replace

TEMPORARY = ".tmp-"
"""Prefix of what a write in progress is called; a killed process may leave it behind."""
_CHUNK = 1 << 22


def fsync_directory(directory: Path) -> None:
    """Flush a directory's entries to disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Flush a file's bytes to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well it is flushed to disk and renamed to ``path``.

    The temporary name keeps the suffix, so writers that look at it work. After an exception nothing is left behind and
    an older ``path`` is untouched.

    Raises:
        InputError: ``path`` is something else than a regular file.
    """
    path = Path(path)
    with atomic_files(path.parent, path.name) as scratch:
        yield scratch / path.name


@contextlib.contextmanager
def atomic_files(directory: Path, name: str, *beside: str) -> Iterator[Path]:
    """Yield an empty temporary directory; when the block ends well, the files written there take their places.

    An older ``name`` that has files ``beside`` it is removed before those change, and the new one comes last, so that
    at no moment it stands beside files that are not its own.

    Args:
        directory: where the files go; made if need be.
        name: of the file that the block has to write.
        beside: names of files that belong to it; those that the block does not write are gone afterwards.

    Raises:
        InputError: one of them is something else than a regular file.
    """
    directory = absolute(directory)
    for each in (name, *beside):
        refuse_to_replace(directory / each)
    directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=directory))
    try:
        yield scratch
        made = [*(other for other in beside if (scratch / other).exists()), name]
        for each in made:
            fsync_file(scratch / each)
        for each in made:
            refuse_to_replace(directory / each)
        for old in (name, *beside) if beside else ():
            (directory / old).unlink(missing_ok=True)
        for each in made:
            os.replace(scratch / each, directory / each)
        fsync_directory(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary directory beside ``path``; when the block ends well it takes the place of ``path``.

    Raises:
        InputError: ``path`` is something else than a directory.
    """
    path = absolute(path)
    refuse_to_replace(path, folder=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    temporary = scratch / path.name
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                fsync_file(Path(folder, name))
            fsync_directory(Path(folder))
        refuse_to_replace(path, folder=True)
        if path.exists():
            # A rename cannot replace a directory that is not empty: the old one moves into the scratch directory.
            os.replace(path, scratch / "replaced")
        os.replace(temporary, path)
        fsync_directory(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def copy_file(source: Path, target: Path) -> None:
    """Make ``target`` a copy of ``source``. The ``onnx`` package refuses data files with more than one hard link."""
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def link_file(source: Path, target: Path) -> None:
    """Make ``target`` the same bytes as ``source``: a hard link where the file system allows it, else a copy."""
    with atomic_write(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a regular file's bytes, in hexadecimal; read once per process for as long as the file stays as it is.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open(path, "rb", opener=open_regular) as stream:
        return sha256_stream(stream)


def sha256_stream(stream: BinaryIO) -> str:
    """Like ``sha256_file``, of a file that was just opened."""
    state = _state(stream)
    if state not in _HASHES:
        # A write within one tick of the file system's clock leaves no mark: wait until this tick is over.
        grain = _TICK_NS if state[-1] % 1_000_000 else _COARSE_TICK_NS
        age = time.time_ns() - max(state[-2:])
        if age < _TICK_NS:
            time.sleep(_TICK_NS / 1e9)
            age += _TICK_NS
        digest = _read_sha256(stream)
        if age < grain or _state(stream) != state:
            return digest
        _HASHES[state] = digest
    return _HASHES[state]


_HASHES: dict[tuple[int, ...], str] = {}
_TICK_NS, _COARSE_TICK_NS = 20_000_000, 2_000_000_000
"""Longer than the clock that marks files takes to move on: Linux's, and that of file systems without nanoseconds."""


def _state(stream: BinaryIO) -> tuple[int, ...]:
    """What changes when a file is written to, or another takes its place."""
    found = os.fstat(stream.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read_sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_files(files: Mapping[str, str]) -> str:
    """One SHA-256 for a set of files given as ``name -> SHA-256``."""
    return sha256_text(canonical_json(dict(files)))


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
