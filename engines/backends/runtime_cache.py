"""Kernels that TensorRT-RTX compiled for the GPU at hand, kept for the next process.

TensorRT-RTX compiles an engine's kernels when it is first run, in every process anew. Its runtime cache holds them. The
library refuses a cache of another GPU, version or driver, so that each of these has a file of its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from f3prune.core.atomic_files import atomic_write, canonical_json, sha256_text
from f3prune.engines.backends.cuda import Gpu
from f3prune.engines.building import distrust

_DIGEST = hashlib.sha256().digest_size


def cache_file(engines: Path, gpu: Gpu, version: str, engine: str) -> Path:
    """Where the compiled kernels of an engine are kept.

    Args:
        engines: the engine cache, see ``f3prune.engines.building``; kernels are kept beside it.
        gpu: that runs the engine, with its driver's version.
        version: of TensorRT-RTX.
        engine: the engine's key.
    """
    parts = {"gpu": gpu.name, "capability": gpu.capability, "driver": gpu.driver, "version": version, "engine": engine}
    return engines.parent / "kernels" / f"{sha256_text(canonical_json(parts))}.bin"


def read_cache(path: Path) -> bytes | None:
    """What :func:`write_cache` kept; None where nothing is, or nothing that can be trusted."""
    if distrust(path.parent) is not None or distrust(path) is not None:
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, kernels = content[:_DIGEST], content[_DIGEST:]
    return kernels if kernels and hashlib.sha256(kernels).digest() == digest else None


def write_cache(path: Path, kernels: bytes) -> None:
    """Keep compiled kernels, whole or not at all; a cache that cannot be written to is left alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if distrust(path.parent) is not None:
            return
        with atomic_write(path) as temporary:
            temporary.write_bytes(hashlib.sha256(kernels).digest() + kernels)
    except OSError:
        return
