"""OpenVINO on the exporter's files, dense and pruned, in fp32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from f3prune.bench.contenders._base import BenchContext, Contender, Missing, Opened, label_of
from f3prune.calibration import PruneConfig

if TYPE_CHECKING:
    from f3prune.bench.contenders._graph_denoiser import GraphSession

INSTALL = "pip install openvino (or 'f3prune[bench]')"


@dataclass(frozen=True)
class OpenVino(Contender):
    """OpenVINO's CPU plugin, tuned for latency.

    Attributes:
        config: what is pruned; None for the dense model.
    """

    kind: ClassVar[str] = "openvino"
    config: PruneConfig | None = None

    @property
    def name(self) -> str:
        return "OpenVINO" + (f" {label_of(self.config)}" if self.config else "")

    def missing(self, context: BenchContext) -> Missing | None:
        if not context.strategy.one_graph:
            return Missing("not applicable", f"{context.family.title} runs two graphs and keeps caches between calls")
        if find_spec("openvino") is None:
            return Missing("absent", f"OpenVINO is not installed: {INSTALL}")
        return None

    @contextlib.contextmanager
    def opened(self, context: BenchContext) -> Iterator[Opened]:
        from f3prune.bench.contenders._graph_denoiser import graph_denoiser

        session_class = _session_class()

        def open_file(file: Path) -> GraphSession:
            session: GraphSession = session_class(file, context)
            return session

        with graph_denoiser(context, self.config, open_file) as (denoiser, sessions):
            first: Any = sessions[0]
            yield Opened(denoiser, {"threads": first.threads()})


def _session_class() -> Any:
    import openvino
    import torch

    from f3prune.bench.contenders._graph_denoiser import GraphSession

    class OpenVinoSession(GraphSession):
        """``compile_model(file, "CPU")`` and one request."""

        def __init__(self, file: Path, context: BenchContext) -> None:
            super().__init__(file, context, torch.device("cpu"))
            self._compiled: Any = None
            self._request: Any = None

        def _load(self) -> None:
            options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
            self._compiled = openvino.Core().compile_model(str(self.file), "CPU", options)
            self._request = self._compiled.create_infer_request()

        def _unload(self) -> None:
            self._compiled = self._request = None

        def threads(self) -> int:
            """How many threads OpenVINO chose."""
            return int(self._compiled.get_property("INFERENCE_NUM_THREADS"))

        def _call(self, feeds: dict[str, Any]) -> list[Any]:
            found = self._request.infer(feeds, share_inputs=True)
            # The request writes into the same memory next time.
            return [found[spec.name].copy() for spec in self.outputs]

    return OpenVinoSession
