"""The engine cache: finished engines under the SHA-256 of everything they depend on.

A pruned and a dense model may have the same graph; their weights are part of the key, so they never share an engine.
An entry is hashed before it is used; one that was cut short or altered is thrown away.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from f3prune.core.atomic_files import atomic_directory, link_file
from f3prune.core.errors import ArtifactError
from f3prune.engines._record import EngineRecord, read_record, verify_files, write_record


def cache_directory(configured: str | None = None) -> Path:
    """Where the cache is: ``configured``, else ``$F3PRUNE_CACHE/engines``, else ``~/.cache/f3prune/engines``."""
    if configured:
        return Path(configured).expanduser()
    root = os.environ.get("F3PRUNE_CACHE")
    return (Path(root).expanduser() if root else Path("~/.cache/f3prune").expanduser()) / "engines"


def fetch(plan: EngineRecord, cache: Path, directory: Path) -> EngineRecord | None:
    """Put the cached engine for ``plan`` into ``directory``, without its record, and return the entry's record.

    Returns None when the cache has no entry that can be trusted; a corrupt one is removed.
    """
    entry = cache / plan.key
    if not entry.is_dir():
        return None
    try:
        record = read_record(entry)
        verify_files(record, entry)
    except ArtifactError:
        record = None
    if record is None or record.key != plan.key:
        shutil.rmtree(entry, ignore_errors=True)
        return None
    for name in record.files:
        link_file(entry / name, directory / name)
    return record


def store(record: EngineRecord, cache: Path, directory: Path) -> None:
    """Keep the engine of ``directory`` in the cache; one that cannot be written to is left alone."""
    try:
        with atomic_directory(cache / record.key) as entry:
            for name in record.files:
                link_file(directory / name, entry / name)
            write_record(record, entry)
    except OSError:
        return
