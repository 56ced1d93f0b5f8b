"""ONNX Runtime on the graph as it was exported: a plain session with its default options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from f3prune.bench.contenders._base import BenchContext, Contender, Missing, Opened
from f3prune.core.errors import InputError

if TYPE_CHECKING:
    from f3prune.bench.contenders._graph_denoiser import GraphSession

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class PlainOnnxRuntime(Contender):
    """The dense model in ONNX Runtime.

    Attributes:
        provider: ``cpu`` or ``cuda``.
    """

    kind: ClassVar[str] = "onnxruntime"
    provider: str = "cpu"

    def __post_init__(self) -> None:
        """Raises ``InputError`` for another provider."""
        if self.provider not in _PROVIDERS:
            raise InputError(f"provider {self.provider!r}: expected one of {', '.join(_PROVIDERS)}")

    @property
    def name(self) -> str:
        return "ONNX Runtime" + (" CUDA" if self.provider == "cuda" else "")

    def missing(self, context: BenchContext) -> Missing | None:
        import onnxruntime

        from f3prune.engines.backends import find_gpu

        if not context.strategy.one_graph:
            return Missing("not applicable", f"{context.family.title} runs two graphs and keeps caches between calls")
        if self.provider == "cuda":
            if isinstance(gpu := find_gpu(), str):
                return Missing("absent", f"the CUDA provider needs a GPU, and {gpu}")
            if _PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
                return Missing("absent", 'this ONNX Runtime has no CUDA: pip install "onnxruntime-gpu[cuda,cudnn]"')
        return None

    @contextlib.contextmanager
    def opened(self, context: BenchContext) -> Iterator[Opened]:
        import torch

        from f3prune.bench.contenders._graph_denoiser import graph_denoiser

        session_class = _session_class()

        def open_file(file: Path) -> GraphSession:
            return session_class(file, context, torch.device(self.provider), _PROVIDERS[self.provider])

        with graph_denoiser(context, None, open_file) as (denoiser, _):
            yield Opened(denoiser, {})


def _session_class() -> Any:
    import onnxruntime
    import torch

    from f3prune.bench.contenders._graph_denoiser import GraphSession

    class PlainSession(GraphSession):
        """``InferenceSession(file).run(None, feeds)``."""

        def __init__(self, file: Path, context: BenchContext, device: torch.device, provider: str) -> None:
            super().__init__(file, context, device)
            self._provider = provider
            self._session: Any = None

        def _load(self) -> None:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = _ERRORS_ONLY
            if self._provider == _PROVIDERS["cuda"]:
                onnxruntime.preload_dlls()
            providers = list(dict.fromkeys([self._provider, _PROVIDERS["cpu"]]))
            self._session = onnxruntime.InferenceSession(str(self.file), options, providers=providers)

        def _unload(self) -> None:
            self._session = None

        def _call(self, feeds: dict[str, Any]) -> list[Any]:
            found: list[Any] = self._session.run([spec.name for spec in self.outputs], feeds)
            return found

    return PlainSession
