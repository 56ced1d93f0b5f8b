"""Everything that is timed against everything else: one small class per method, found by its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from f3prune.bench.contenders._base import BenchContext, Contender, Missing, Opened, label_of, read
from f3prune.bench.contenders.caching import FasterCache, FirstBlockCache, MagCache, PyramidAttentionBroadcast
from f3prune.bench.contenders.engine import Engine
from f3prune.bench.contenders.openvino import OpenVino
from f3prune.bench.contenders.plain_onnxruntime import PlainOnnxRuntime
from f3prune.bench.contenders.pytorch import Compiled, Eager, EagerPruned
from f3prune.calibration import PruneConfig

__all__ = [
    "Compiled",
    "Contender",
    "Eager",
    "EagerPruned",
    "Engine",
    "FasterCache",
    "FirstBlockCache",
    "MagCache",
    "Missing",
    "Opened",
    "OpenVino",
    "PlainOnnxRuntime",
    "PyramidAttentionBroadcast",
    "BenchContext",
    "from_json",
    "label_of",
    "contenders_of",
    "registry",
]

_CLASSES: tuple[type[Contender], ...] = (
    Eager,
    EagerPruned,
    Compiled,
    PyramidAttentionBroadcast,
    FasterCache,
    FirstBlockCache,
    MagCache,
    PlainOnnxRuntime,
    OpenVino,
    Engine,
)


def registry() -> dict[str, type[Contender]]:
    """Every kind of contender by its name on the command line."""
    return {cls.kind: cls for cls in _CLASSES}


def from_json(value: Mapping[str, Any]) -> Contender:
    """Inverse of ``Contender.to_json``.

    Raises:
        InputError: an unknown kind, or fields that it does not have.
    """
    return read(registry(), value)


def contenders_of(
    points: Sequence[PruneConfig], kinds: Sequence[str] = (), skips: Sequence[float] = ()
) -> list[Contender]:
    """All contenders, dense ones first.

    Args:
        points: what pruned contenders prune; those on another backend than the first are tried on all of them too.
        skips: shares of the denoising steps that our engines skip too, each with every pruning.
        kinds: only these kinds; the reference (``pytorch``) is always among them. Empty means all.
    """
    found: list[Contender] = [
        Eager(),
        Compiled(),
        PyramidAttentionBroadcast(2),
        PyramidAttentionBroadcast(3),
        FasterCache(2),
        FasterCache(3),
        FirstBlockCache(0.05),
        FirstBlockCache(0.2),
        MagCache(0.06),
        MagCache(0.24),
        PlainOnnxRuntime("cpu"),
        PlainOnnxRuntime("cuda"),
        OpenVino(),
        *(EagerPruned(point) for point in points),
        *(OpenVino(point) for point in points),
    ]
    for backend in ("onnxruntime", "tensorrt-rtx", "tensorrt"):
        for skip in (0.0, *skips):
            found += [Engine(None, backend, skip), *(Engine(point, backend, skip) for point in points)]
    wanted = {*(kinds or registry()), Eager.kind}
    return [contender for contender in found if contender.kind in wanted]
