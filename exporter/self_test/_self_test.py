"""Run an exported file in ONNX Runtime against PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from f3prune.core.errors import ExportError
from f3prune.core.parity import ROUNDING, ParityNumbers, parity
from f3prune.exporter._trace import run_whole
from f3prune.exporter.arguments import Arguments
from f3prune.exporter.self_test._ort_cpu import OrtGraph


@dataclass(frozen=True)
class SelfTest:
    """What the self-test found.

    Attributes:
        ran_as: ``graph``: the file as it is; ``fp32``: the same nodes and weights with bfloat16 replaced by float32,
            because ONNX Runtime's CPU provider lacks an operator in bfloat16.
        bound: of ``rel_l2``.
        calls: one per input tested and output.
    """

    ran_as: str
    bound: float
    calls: tuple[ParityNumbers, ...]

    @property
    def worst(self) -> ParityNumbers:
        """The call with the greatest relative difference; one with values that are not finite is worse than any."""
        return max(self.calls, key=lambda call: call.badness)

    @property
    def passed(self) -> bool:
        """No call differs more than the bound, and all values are finite."""
        return not self.worst.non_finite and self.worst.rel_l2 <= self.bound


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
        answers = run_whole(denoiser, arguments, tensors)
        for expected, (name, actual) in zip(answers, graph.run_all(tensors).items(), strict=True):
            if actual.shape != expected.shape:
                raise ExportError(
                    f"self-test of {path.name}: ONNX Runtime gave {name} of shape {tuple(actual.shape)}, "
                    f"PyTorch {tuple(expected.shape)}"
                )
            calls.append(parity(expected.cpu(), actual))
    result = SelfTest(graph.ran_as, ROUNDING[dtype], tuple(calls))
    if not result.passed:
        worst = result.worst
        found = worst.non_finite or f"relative L2 {worst.rel_l2:.3g}"
        raise ExportError(
            f"self-test of {path.name} failed on call {calls.index(worst) + 1}: {found}, expected at most "
            f"{result.bound:g} for {dtype} (max abs {worst.max_abs:.3g}, cosine {worst.cosine:.6f}); "
            "report this denoiser"
        )
    return result
