"""Files and directories that appear whole or not at all, and their hashes. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
    """
    directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=directory))
    try:
        yield scratch
        made = [*(other for other in beside if (scratch / other).exists()), name]
        for each in made:
            fsync_file(scratch / each)
        for old in (name, *beside) if beside else ():
            (directory / old).unlink(missing_ok=True)
        for each in made:
            os.replace(scratch / each, directory / each)
        fsync_directory(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary directory beside ``path``; when the block ends well it takes the place of ``path``."""
    path = Path(path)
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
        if path.exists():
            # A rename cannot replace a directory that is not empty: the old one moves into the scratch directory.
            os.replace(path, scratch / "replaced")
        os.replace(temporary, path)
        fsync_directory(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, streamed, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
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
