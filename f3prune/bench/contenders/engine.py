"""This package's engines, dense (α = 0) and pruned, on every backend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

from f3prune.bench.contenders._base import BenchContext, Contender, Missing, Opened, label_of
from f3prune.calibration import PruneConfig
from f3prune.core.errors import InputError

_TITLES = {"onnxruntime": "f3prune", "tensorrt-rtx": "f3prune TensorRT-RTX", "tensorrt": "f3prune TensorRT"}
_PACKAGES = {
    "tensorrt-rtx": ("tensorrt_rtx", "pip install 'f3prune[cu12]'"),
    "tensorrt": ("tensorrt", "pip install 'f3prune[tensorrt]'"),
}


@dataclass(frozen=True)
class Engine(Contender):
    """What ``f3prune build`` makes.

    Attributes:
        config: what is pruned; None for the dense model, α = 0.
        backend: see ``f3prune.engines.BuildConfig``.
        skip: share of the denoising steps that is extrapolated from earlier ones.
    """

    kind: ClassVar[str] = "engine"
    own: ClassVar[bool] = True
    config: PruneConfig | None = None
    backend: str = "onnxruntime"
    skip: float = 0.0

    def __post_init__(self) -> None:
        """Raises ``InputError`` for another backend, or a share that is none."""
        if not 0 <= self.skip < 1:
            raise InputError(f"`skip` is {self.skip:g}: give a share of the steps, at least 0 and below 1")
        if self.backend not in _TITLES:
            raise InputError(f"`backend` is {self.backend!r}, expected one of {', '.join(_TITLES)}")

    @property
    def name(self) -> str:
        skipping = f", {self.skip:.0%} of steps skipped" if self.skip else ""
        return f"{_TITLES[self.backend]} {label_of(self.config) if self.config else 'α=0'}{skipping}"

    @property
    def required(self) -> bool:
        """Engines have to work; whether steps can be skipped depends on the pipeline."""
        return self.skip == 0

    def missing(self, context: BenchContext) -> Missing | None:
        if self.skip:
            from f3prune.engines.step_reuse import steps_to_skip

            if not context.strategy.has_steps:
                return Missing("not applicable", f"{context.family.title} draws token by token: it has no steps")
            if steps_to_skip(self.skip, context.steps) > context.steps - 3:
                return Missing("not applicable", f"{self.skip:.0%} of {context.steps} steps cannot be skipped")
        if self.backend in _PACKAGES:
            from f3prune.engines.backends import find_gpu

            module, install = _PACKAGES[self.backend]
            if find_spec(module) is None:
                return Missing("absent", f"{self.backend} is not installed: {install}")
            if isinstance(gpu := find_gpu(), str):
                return Missing("absent", f"{self.backend} engines run on a GPU, and {gpu}")
        return None

    @contextlib.contextmanager
    def opened(self, context: BenchContext) -> Iterator[Opened]:
        denoiser: Any
        plan = context.step_reuse(self.skip) if self.skip else None
        with context.engine(self.config, self.backend) as denoiser:
            if plan is None:
                yield Opened(denoiser, {})
            else:
                denoiser.reuse_steps(plan)
                yield Opened(denoiser, {"skipped_steps": list(plan.skipped), "skipped_share": plan.share})
