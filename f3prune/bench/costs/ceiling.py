"""How close a measured time is to what the arithmetic alone would take, and what pruning can give at most."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from f3prune.bench.costs.machine import MachineRates
from f3prune.core.errors import InputError
from f3prune.exporter.costs import GraphCosts


@dataclass(frozen=True)
class Ceiling:
    """Attributes:
    matmul_seconds: all matrix products at the machine's rate, everything else for nothing.
    roofline_seconds: every node at the slower of its operations and its bytes (Williams et al. 2009), in sequence.
    seconds: measured; ``None`` before a run.
    """

    matmul_seconds: float
    roofline_seconds: float
    seconds: float | None = None

    @property
    def matmul_share(self) -> float | None:
        """Share of the measured time that the matrix products need: 1 is a perfect machine."""
        return None if self.seconds is None else self.matmul_seconds / self.seconds

    @property
    def roofline_share(self) -> float | None:
        """Share of the measured time that the roofline allows."""
        return None if self.seconds is None else self.roofline_seconds / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "matmul_share": self.matmul_share, "roofline_share": self.roofline_share}


def ceiling(
    costs: GraphCosts,
    rates: MachineRates,
    seconds: float | None = None,
    dtype: str = "fp32",
    fused_attention: bool = True,
) -> Ceiling:
    """Set the measured time of one run of a graph against what its arithmetic takes on this machine.

    Args:
        costs: of the graph that ran (``f3prune.exporter.costs``), at the sizes it ran with.
        rates: of the machine that it ran on.
        seconds: measured time of one run.
        dtype: that it computed in: ``fp32``, ``fp16`` or ``bf16``.
        fused_attention: leave out the bytes of score matrices, which fused attention never writes. It is what is
            possible, whether or not this graph's runtime does it.

    Raises:
        InputError: unknown dtype, or a measured time that is not positive.
    """
    if seconds is not None and not seconds > 0:
        raise InputError(f"measured seconds {seconds}: expected a positive time")
    rate = rates.flops_of(dtype)
    roofline = 0.0
    for node in costs.nodes:
        moved = node.cost.bytes - (node.cost.score_bytes if fused_attention else 0)
        roofline += max(node.cost.flops / rate, moved / rates.bytes_of(moved))
    return Ceiling(costs.matmul_flops / rate, roofline, seconds)


def matmuls_allow(dense: GraphCosts | int, pruned: GraphCosts | int) -> float:
    """The Amdahl ceiling of a pruning: how much faster it gets if matrix products took all of the time.

    Softmax over scores shrinks as well, so a measured speed-up can pass it.

    Args:
        dense: of the dense graph, or its ``matmul_flops``.
        pruned: of the pruned one.

    Raises:
        InputError: the pruned graph has no matrix products.
    """
    before, after = (costs if isinstance(costs, int) else costs.matmul_flops for costs in (dense, pruned))
    if after <= 0:
        raise InputError("the pruned graph has no matrix products: give the costs of a denoiser")
    return before / after


def share_of_allowed(speedup: float, allowed: float) -> float:
    """Share of the Amdahl ceiling that a measured speed-up reaches: 1 is all of it."""
    return speedup / allowed
