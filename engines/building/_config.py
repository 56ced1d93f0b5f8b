"""What an engine is built for: backend, shapes, targets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from f3prune.core.choices import BACKENDS
from f3prune.core.errors import InputError
from f3prune.core.json_values import from_json_values, json_values, parse_json

Backend = Literal["onnxruntime", "tensorrt-rtx", "tensorrt"]
GraphOptimization = Literal["disable", "basic", "extended", "all"]
GRAPH_OPTIMIZATIONS: tuple[str, ...] = get_args(GraphOptimization)
VERSION = 1

DimensionRange = tuple[int, int, int]


@dataclass(frozen=True)
class BuildConfig:
    """How to build an engine.

    Attributes:
        backend: ``onnxruntime``, ``tensorrt-rtx`` or ``tensorrt``.
        batch: ``(min, opt, max)`` of the symbolic dimension ``batch``; guidance runs with batch 2.
        ranges: ``(min, opt, max)`` of any other symbolic dimension of the graph, by its name; ``text`` is the number of
            text tokens.
        compute_capabilities: GPUs that a TensorRT-RTX engine is compiled for, e.g. ``("8.9", "12.0")``; it runs on no
            other. Empty means what the library takes then: 8.0, 8.6, 8.9, 12.0 and later. Turing, 7.5, has to be named.
        tf32: let TensorRT round fp32 matrix products to TF32. Off, so that an fp32 engine is fp32.
        optimization_level: TensorRT's builder level, 0 (fast build) to 5; ``None`` keeps the default.
        workspace_bytes: limit of TensorRT's scratch memory; ``None`` means all of the GPU.
        weight_streaming: GiB of the weights that stay on the GPU with a TensorRT backend; the rest comes from the
            machine's memory as it is needed. ``None`` keeps all of them there.
        timing_cache: file of TensorRT kernel timings, read and extended by each build of the ``tensorrt`` backend. It
            changes how fast a build is, not what it builds, so it is not part of the cache key.
        graph_optimization: ONNX Runtime's graph optimisation when a session opens.
        fused_attention: ONNX Runtime computes attention to at least this many keys in one operator, which never holds
            the score matrix. Attention to fewer keys is quicker in three. ``None`` keeps the exported graph as it is.
        threads: ONNX Runtime's threads within one operator; 0 lets it choose.
        cache: look for a finished engine in the engine cache, and leave a built one there.
        cache_directory: place of the engine cache; ``None`` means ``$F3PRUNE_CACHE/engines``, else
            ``~/.cache/f3prune/engines``.

    Raises:
        InputError: a value is out of range, or is for another backend.

    Examples:
        >>> config = BuildConfig("tensorrt-rtx", batch=(1, 2, 4), compute_capabilities=("8.9",))
        >>> config.range_of("batch")
        (1, 2, 4)
        >>> BuildConfig.from_json(config.to_json()) == config
        True
    """

    backend: Backend = "onnxruntime"
    batch: DimensionRange = (1, 2, 2)
    ranges: Mapping[str, DimensionRange] = field(default_factory=lambda: {"text": (1, 256, 512)})
    compute_capabilities: tuple[str, ...] = ()
    tf32: bool = False
    optimization_level: int | None = None
    workspace_bytes: int | None = None
    weight_streaming: float | None = None
    timing_cache: str | None = None
    graph_optimization: GraphOptimization = "all"
    fused_attention: int | None = 192
    threads: int = 0
    cache: bool = True
    cache_directory: str | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            InputError: naming the first value that cannot be.
        """
        if self.version != VERSION:
            raise InputError(
                f"BuildConfig version {self.version} is not {VERSION}: written by another f3prune; "
                f"run `build(...)` again"
            )
        if self.backend not in BACKENDS:
            raise InputError(f"`backend` is {self.backend!r}, expected one of {', '.join(BACKENDS)}")
        if self.graph_optimization not in GRAPH_OPTIMIZATIONS:
            raise InputError(
                f"graph_optimization {self.graph_optimization!r} is not one of {', '.join(GRAPH_OPTIMIZATIONS)}"
            )
        for name, bounds in {"batch": self.batch, **self.ranges}.items():
            if len(bounds) != 3 or not 1 <= bounds[0] <= bounds[1] <= bounds[2]:
                raise InputError(
                    f"range of {name} is {tuple(bounds)}: expected (min, opt, max) with 1 <= min <= opt <= max"
                )
        for capability in self.compute_capabilities:
            parse_capability(capability)
        if self.compute_capabilities and self.backend != "tensorrt-rtx":
            raise InputError(
                f"`compute_capabilities` {', '.join(self.compute_capabilities)} are for `backend='tensorrt-rtx'`, "
                f"which compiles ahead of time for chosen GPUs, not {self.backend}: leave them out, or use that"
            )
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise InputError(f"optimization_level {self.optimization_level} is outside 0 to 5")
        if self.weight_streaming is not None and (self.backend == "onnxruntime" or not self.weight_streaming > 0):
            raise InputError(
                f"`weight_streaming` is {self.weight_streaming:g} with `backend={self.backend!r}`: expected more than "
                f"0 GiB, and a TensorRT backend"
            )
        if self.fused_attention is not None and self.fused_attention < 1:
            raise InputError(f"fused_attention is {self.fused_attention}: expected a number of keys from 1 on, or None")
        if self.threads < 0:
            raise InputError(f"threads {self.threads} is negative: give 0 for the default or a count")

    def range_of(self, dimension: str) -> DimensionRange:
        """``(min, opt, max)`` of a symbolic dimension.

        Raises:
            InputError: no range was given for it.
        """
        if dimension == "batch":
            return self.batch
        if dimension not in self.ranges:
            raise InputError(
                f"the graph's dimension {dimension!r} is dynamic and has no range: "
                f"give BuildConfig(ranges={{{dimension!r}: (min, opt, max)}})"
            )
        return self.ranges[dimension]

    def flags(self) -> dict[str, Any]:
        """The options that change what is built for this backend: part of the engine cache key."""
        if self.backend == "onnxruntime":
            from f3prune.engines.rewrites import rewrite_names

            return {
                "graph_optimization": self.graph_optimization,
                "rewrites": rewrite_names(self.fused_attention),
                "threads": self.threads,
            }
        return {
            "strongly_typed": True,
            # CUDA graphs of a TensorRT-RTX engine are recorded only where nothing allocates within.
            "require_user_allocation": self.backend == "tensorrt-rtx",
            "weight_streaming_gib": self.weight_streaming,
            "tf32": self.tf32,
            "optimization_level": self.optimization_level,
            "workspace_bytes": self.workspace_bytes,
        }

    def to_json(self) -> str:
        """JSON text that :meth:`from_json` reads."""
        return json.dumps(json_values(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> BuildConfig:
        """Read :meth:`to_json`'s text.

        Raises:
            InputError: it is no such text.
        """
        try:
            return from_json_values(cls, parse_json(text))
        except (ValueError, TypeError) as error:
            raise InputError(f"not a BuildConfig ({error}): written by another f3prune") from error


def parse_capability(text: str) -> tuple[int, int]:
    """``"8.9"`` as ``(8, 9)``.

    Raises:
        InputError: it is not written ``major.minor``.
    """
    major, dot, minor = text.partition(".")
    if not (dot and major.isdigit() and minor.isdigit()):
        raise InputError(f"compute capability {text!r} is not written major.minor, e.g. 8.9 (RTX 40) or 12.0 (RTX 50)")
    return int(major), int(minor)
