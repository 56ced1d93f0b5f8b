"""PyTorch: eager, dense and pruned, and ``torch.compile``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from shutil import which
from typing import Any, ClassVar

from f3prune.bench.contenders._base import BenchContext, Contender, Missing, Opened, label_of
from f3prune.calibration import PruneConfig


@dataclass(frozen=True)
class Eager(Contender):
    """The dense model as its library runs it: the reference of every comparison."""

    kind: ClassVar[str] = "pytorch"

    @property
    def name(self) -> str:
        return "PyTorch"

    @property
    def required(self) -> bool:
        """The reference."""
        return True

    @contextlib.contextmanager
    def opened(self, context: BenchContext) -> Iterator[Opened]:
        yield Opened(context.dense(), {})


@dataclass(frozen=True)
class EagerPruned(Contender):
    """A pruned model without any export."""

    kind: ClassVar[str] = "pytorch-pruned"
    config: PruneConfig

    @property
    def name(self) -> str:
        return f"PyTorch {label_of(self.config)}"

    @contextlib.contextmanager
    def opened(self, context: BenchContext) -> Iterator[Opened]:
        yield Opened(context.pruned(self.config), {})


@dataclass(frozen=True)
class Compiled(Contender):
    """``torch.compile`` of the dense model, compiled before anything is timed."""

    kind: ClassVar[str] = "torch-compile"

    @property
    def name(self) -> str:
        return "torch.compile"

    def missing(self, context: BenchContext) -> Missing | None:
        if not context.strategy.one_graph:
            return Missing("not applicable", f"{context.family.title} draws tokens with caches that change shape")
        if context.device.type == "cpu" and not any(map(which, ("g++", "clang++", "c++"))):
            return Missing("absent", "torch.compile needs a C++ compiler: apt-get install g++")
        return None

    @contextlib.contextmanager
    def opened(self, context: BenchContext) -> Iterator[Opened]:
        import torch

        compiled: Any = torch.compile(context.dense())
        started = time.perf_counter()
        try:
            context.warm_up(compiled)
            yield Opened(compiled, {"compile_seconds": time.perf_counter() - started})
        finally:
            torch._dynamo.reset()
