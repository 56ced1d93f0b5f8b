"""What the matrix products of a contender's graph alone take, beside its measured time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from f3prune.bench.contest.sweep import Sweep
from f3prune.bench.costs.ceiling import matmuls_allow
from f3prune.bench.costs.machine import MachineRates, measure_machine
from f3prune.calibration import PruneConfig
from f3prune.exporter import graph_costs
from f3prune.steps._state import RunState
from f3prune.steps.export import STEP as EXPORT_STEP


@dataclass(frozen=True)
class Products:
    """Matrix products of a generation's denoiser calls.

    Attributes:
        gflop_per_call: floating-point operations of a call, in 10^9; the dense graph's where a method skips work.
        seconds: what those of all calls take at the machine's rate.
        share: of the measured time; above 1 where a method skips calls.
        allow: Amdahl ceiling of the pruning, dense over pruned.
    """

    gflop_per_call: float
    seconds: float
    share: float
    allow: float


class Arithmetic:
    """Counts graphs once each; counts nothing where the dense graph was never exported, as without any engine."""

    def __init__(self, state: RunState, sweep: Sweep, dtype: str) -> None:
        """Measure the machine, if there is anything to count."""
        self._sweep, self._dtype = sweep, dtype
        self._flops: dict[str, float] = {}
        self._sizes = sizes_of(state)
        known = state.strategy.one_graph and state.run.manifest(EXPORT_STEP["dense"]) is not None
        self.rates: MachineRates | None = measure_machine(sweep.device) if known else None

    def of(self, pruning: PruneConfig | None, calls: float, measured: float) -> dict[str, Any] | None:
        """``Products`` of a contender as JSON values.

        Args:
            pruning: what it prunes.
            calls: of the denoiser in a generation that compute anything.
            measured: seconds of all of them.
        """
        if self.rates is None:
            return None
        flops, dense = self._count(pruning), self._count(None)
        seconds = flops * calls / self.rates.flops_of(self._dtype)
        return asdict(Products(flops / 1e9, seconds, seconds / measured, matmuls_allow(round(dense), round(flops))))

    def _count(self, pruning: PruneConfig | None) -> float:
        key = "dense" if pruning is None else self._sweep.key(pruning)
        if key not in self._flops:
            graphs: list[Path] = [graph for _, graph in self._sweep.graphs(pruning)]
            self._flops[key] = fmean(graph_costs(graph, self._sizes).matmul_flops for graph in graphs)
        return self._flops[key]


def sizes_of(state: RunState) -> dict[str, int]:
    """``batch`` and ``text`` of a recorded denoiser call."""
    arguments = state.calls()[0].arguments
    sizes = {"batch": int(arguments[state.family.latents].shape[0])}
    text = arguments.get("encoder_hidden_states")
    if torch.is_tensor(text):
        sizes["text"] = int(text.shape[1])
    return sizes
