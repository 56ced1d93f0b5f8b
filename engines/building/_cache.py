"""The engine cache: finished engines under the SHA-256 of everything they depend on.

A pruned and a dense model may have the same graph; their weights are part of the key, so they never share an engine.
An entry is hashed while it is copied out; one that was cut short or altered is thrown away. A cache that somebody else
owns or may write to is not used: who can put an engine there can choose what runs. Nothing is linked, so that an engine
in use cannot be changed through the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from pathlib import Path

from f3prune.core.atomic_files import atomic_directory, atomic_write
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.places import open_in
from f3prune.engines._record import RECORD, EngineRecord, read_record, write_record

__all__ = ["cache_directory", "distrust", "fetch", "store"]

_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_BLOCK = 1 << 20


def cache_directory(configured: str | None = None) -> Path:
    """Where the cache is: ``configured``, else ``$F3PRUNE_CACHE/engines``, else ``~/.cache/f3prune/engines``."""
    if configured:
        return Path(configured).expanduser()
    root = os.environ.get("F3PRUNE_CACHE")
    return (Path(root).expanduser() if root else Path("~/.cache/f3prune").expanduser()) / "engines"


def distrust(path: Path) -> str | None:
    """Why a file or directory of the cache is not used, and what to do; ``None`` where nothing speaks against it."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} cannot be looked at ({error.strerror}): set F3PRUNE_CACHE to another directory"
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a link: give the directory itself"
    if found.st_uid != os.geteuid():
        return f"{path} belongs to user {found.st_uid}: give a directory of your own, by F3PRUNE_CACHE for example"
    if found.st_mode & _OTHERS:
        return f"others may write to {path}: remove it or, if you know what is in it, run chmod go-w {path}"
    return None


def fetch(plan: EngineRecord, cache: Path, directory: Path) -> EngineRecord | None:
    """Put a copy of the cached engine for ``plan`` into ``directory``, without its record, and return the record.

    Returns None when the cache has no entry that can be trusted; a corrupt one is removed.
    """
    entry = cache / plan.key
    if not entry.is_dir() or any(distrust(path) for path in (cache, entry, entry / RECORD)):
        return None
    try:
        record = read_record(entry)
        if record.key != plan.key or any(distrust(entry / name) for name in record.files):
            raise ArtifactError(f"{entry} holds another engine, or somebody else may write to it")
        for name, facts in record.files.items():
            _copy(entry, name, directory / name, str(facts["sha256"]))
    except (ArtifactError, OSError):
        shutil.rmtree(entry, ignore_errors=True)
        return None
    return record


def store(record: EngineRecord, cache: Path, directory: Path) -> None:
    """Keep a copy of the engine of ``directory`` in the cache; one that cannot be written to is left alone."""
    with contextlib.suppress(ArtifactError, InputError, OSError):
        # Whatever the umask: others must not write where engines are taken from.
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if distrust(cache):
            return
        with atomic_directory(cache / record.key) as entry:
            for name, facts in record.files.items():
                _copy(directory, name, entry / name, str(facts["sha256"]))
            write_record(record, entry)
            for path in (entry, *(entry / name for name in (*record.files, RECORD))):
                path.chmod(path.stat().st_mode & ~_OTHERS)


def _copy(folder: Path, name: str, target: Path, expected: str) -> None:
    """Copy a file, hashing the bytes that are copied: it is opened once.

    Raises:
        ArtifactError: they are not those that were expected.
        OSError: it cannot be read or written, or is a link.
    """
    digest = hashlib.sha256()
    with atomic_write(target) as temporary, os.fdopen(open_in(folder, name), "rb") as source:
        with temporary.open("wb") as stream:
            while block := source.read(_BLOCK):
                digest.update(block)
                stream.write(block)
        if digest.hexdigest() != expected:
            raise ArtifactError(f"{folder / name} does not match the SHA-256 in {RECORD}")
