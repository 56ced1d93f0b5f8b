"""What pruning can give at most."""

from __future__ import annotations

from f3prune.core.errors import InputError


def matmuls_allow(dense: int, pruned: int) -> float:
    """The Amdahl ceiling of a pruning: how much faster it gets if matrix products took all of the time.

    Softmax over scores shrinks as well, so a measured speed-up can pass it.

    Args:
        dense: ``matmul_flops`` of the dense graph.
        pruned: of the pruned one.

    Raises:
        InputError: the pruned graph has no matrix products.
    """
    if pruned <= 0:
        raise InputError("the pruned graph has no matrix products: give the costs of a denoiser")
    return dense / pruned
