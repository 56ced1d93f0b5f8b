"""A denoiser that runs an exported graph in somebody else's runtime: sessions without an engine of ours."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from f3prune.bench.contenders._base import BenchContext
from f3prune.calibration import PruneConfig
from f3prune.core.errors import BackendError, reason_of
from f3prune.engines import EngineDenoiser, Session, plan_engine
from f3prune.engines._graph import read_graph

if TYPE_CHECKING:
    import torch


class GraphSession(Session):
    """The exporter's file, opened as a user of the runtime would; checks of names and shapes are the engines' own."""

    def __init__(self, file: Path, context: BenchContext, device: torch.device) -> None:
        """Read what the graph takes and gives."""
        super().__init__(file.parent, plan_engine(read_graph(file), context.build_config()), device)
        self.file = file

    def _prepare(self, inputs: dict[str, torch.Tensor], sizes: dict[str, int]) -> None:
        """Nothing: whoever opens a graph without this package passes arrays."""

    def _run(self, prepared: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        del prepared
        try:
            outputs = self._call({name: tensor.cpu().numpy() for name, tensor in inputs.items()})
        except Exception as error:  # these runtimes' errors share no base class
            raise BackendError(f"{self.file} failed while running: {reason_of(error, 300)}") from error
        return {
            spec.name: torch.from_numpy(output).to(self.device)
            for spec, output in zip(self.outputs, outputs, strict=True)
        }

    @abstractmethod
    def _call(self, feeds: dict[str, Any]) -> list[Any]:
        """Arrays of every output, for arrays by input name."""


@contextlib.contextmanager
def graph_denoiser(
    context: BenchContext, config: PruneConfig | None, open_file: Callable[[Path], GraphSession]
) -> Iterator[tuple[EngineDenoiser, list[GraphSession]]]:
    """A stand-in for the denoiser, one session for every stage."""
    with contextlib.ExitStack() as stack:
        stages = [(low, stack.enter_context(open_file(file))) for low, file in context.graphs(config)]
        sessions = [session for _, session in stages]
        yield EngineDenoiser(context.configuration(), stages if len(stages) > 1 else sessions[0]), sessions
