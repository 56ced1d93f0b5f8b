"""Run an exported file in ONNX Runtime against PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune.core.errors import ExportError
from f3prune.exporter._trace import run_denoiser
from f3prune.exporter.arguments import Arguments
from f3prune.exporter.self_test._ort_cpu import OrtGraph

BOUNDS = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Greatest relative L2 difference, by dtype of the graph."""


@dataclass(frozen=True)
class Agreement:
    """How close two tensors are, computed in fp64.

    Attributes:
        batch: samples in the call.
        max_abs: greatest absolute difference.
        rel_l2: norm of the difference over norm of the reference.
        cosine: similarity of the two as vectors.
    """

    batch: int
    max_abs: float
    rel_l2: float
    cosine: float


@dataclass(frozen=True)
class SelfTest:
    """What the self-test found.

    Attributes:
        ran_as: ``graph``: the file as it is; ``fp32``: the same nodes and weights with bfloat16 replaced by float32,
            because ONNX Runtime's CPU provider lacks an operator in bfloat16.
        bound: of ``rel_l2``.
        calls: one per input tested.
    """

    ran_as: str
    bound: float
    calls: tuple[Agreement, ...]

    @property
    def worst(self) -> Agreement:
        """The call with the greatest relative difference."""
        return max(self.calls, key=lambda call: call.rel_l2)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def self_test(
    path: Path, denoiser: nn.Module, arguments: Arguments, inputs: Sequence[Mapping[str, torch.Tensor]], dtype: str
) -> SelfTest:
    """Compare the file with ``denoiser`` on every one of ``inputs``.

    Requires:
        ``denoiser`` is what was traced, in the dtype of the graph; ``inputs`` fit the graph's inputs.

    Does:
        PyTorch runs in the graph's dtype. ONNX Runtime's CPU provider runs float16 graphs with casts around each
        operator, and bfloat16 ones as fp32 where it must (see ``SelfTest.ran_as``); both round less often than
        PyTorch, hence the wider bounds of these dtypes.

    Raises:
        ExportError: the file does not load, gives another shape, or differs more than the bound of ``dtype``; the
            message has the numbers.
    """
    graph = OrtGraph(path)
    calls = []
    for tensors in inputs:
        expected = run_denoiser(denoiser, arguments, tensors).cpu()
        actual = graph.run(tensors)
        if actual.shape != expected.shape:
            raise ExportError(
                f"self-test of {path.name}: ONNX Runtime gave shape {tuple(actual.shape)}, "
                f"PyTorch {tuple(expected.shape)}"
            )
        calls.append(agreement(actual, expected))
    result = SelfTest(graph.ran_as, BOUNDS[dtype], tuple(calls))
    worst = result.worst
    if not worst.rel_l2 <= result.bound:
        raise ExportError(
            f"self-test of {path.name} failed on batch {worst.batch}: relative L2 {worst.rel_l2:.3g}, expected at most "
            f"{result.bound:g} for {dtype} (max abs {worst.max_abs:.3g}, cosine {worst.cosine:.6f}); "
            f"report this denoiser"
        )
    return result


def agreement(actual: torch.Tensor, reference: torch.Tensor) -> Agreement:
    """Compare two tensors of one shape; anything not finite counts as infinitely far apart."""
    a, b = actual.double().flatten(), reference.double().flatten()
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return Agreement(actual.shape[0], math.inf, math.inf, 0.0)
    difference, norm = (a - b).norm().item(), b.norm().item()
    relative = difference / norm if norm > 0 else (0.0 if difference == 0 else math.inf)
    product = a.norm().item() * norm
    cosine = torch.dot(a, b).item() / product if product > 0 else float(difference == 0)
    return Agreement(actual.shape[0], (a - b).abs().max().item(), relative, cosine)
