"""This package's engines, dense (α = 0) and pruned, on every backend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

from calibration import PruneConfig
from f3prune.contenders._base import Contender, Missing, Opened, Workshop, label_of
from f3prune.errors import InputError

_TITLES = {"onnxruntime": "f3prune", "tensorrt-rtx": "f3prune TensorRT-RTX", "tensorrt": "f3prune TensorRT"}
_PACKAGES = {
    "tensorrt-rtx": ("tensorrt_rtx", "pip install tensorrt-rtx-cu12"),
    "tensorrt": ("tensorrt", "pip install 'f3prune[tensorrt]'"),
}


@dataclass(frozen=True)
class Engine(Contender):
    """What ``f3prune build`` makes.

    Attributes:
        config: what is pruned; None for the dense model, α = 0.
        backend: see ``engines.BuildConfig``.
    """

    kind: ClassVar[str] = "engine"
    own: ClassVar[bool] = True
    config: PruneConfig | None = None
    backend: str = "onnxruntime"

    def __post_init__(self) -> None:
        """Raises ``InputError`` for another backend."""
        if self.backend not in _TITLES:
            raise InputError(f"no backend {self.backend!r}: choose one of {', '.join(_TITLES)}")

    @property
    def name(self) -> str:
        return f"{_TITLES[self.backend]} {label_of(self.config) if self.config else 'α=0'}"

    def missing(self, workshop: Workshop) -> Missing | None:
        del workshop
        if self.backend in _PACKAGES:
            from engines._cuda import find_gpu

            module, install = _PACKAGES[self.backend]
            if find_spec(module) is None:
                return Missing("absent", f"{self.backend} is not installed: {install}")
            if isinstance(gpu := find_gpu(), str):
                return Missing("absent", f"{self.backend} engines run on a GPU, and {gpu}")
        return None

    @contextlib.contextmanager
    def opened(self, workshop: Workshop) -> Iterator[Opened]:
        with workshop.engine(self.config, self.backend) as denoiser:
            yield Opened(denoiser, {})
