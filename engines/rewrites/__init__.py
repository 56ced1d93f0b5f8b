"""What the ONNX Runtime build changes in an exported graph, one rewrite per file.

The exported graph stays what every backend takes; these use operators that only ONNX Runtime has. Weights are not
touched: the rewritten graph refers into the exported graph's data file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.rewrites.fused_attention import FusedAttention

ONNX_RUNTIME_REWRITES = (FusedAttention,)
"""Applied in order."""


@dataclass(frozen=True)
class Rewritten:
    """Attention operators of a rewritten graph.

    Attributes:
        fused: those that never hold a score matrix.
        unfused: softmaxes that are left: attention with a mask of its own for every query, or with one query.
    """

    fused: int
    unfused: int


def rewrite_names() -> list[str]:
    """Names and versions of the rewrites, part of what an engine depends on."""
    return [f"{rewrite.__name__}/{rewrite.VERSION}" for rewrite in ONNX_RUNTIME_REWRITES]


def rewrite_for_onnx_runtime(source: Path, target: Path) -> Rewritten:
    """Write the graph ``source`` to ``target`` with the rewrites applied; its data files belong beside it.

    Args:
        source: an exported graph; its weights are not read.
        target: file to write, in a directory that has or will have the same data files.
    """
    import onnx_ir as ir

    model = ir.load(source)
    for rewrite in ONNX_RUNTIME_REWRITES:
        rewrite()(model)
    ir.save(model, target)
    operators = [node.op_type for node in model.graph]
    return Rewritten(operators.count("MultiHeadAttention"), operators.count("Softmax"))


__all__ = ["ONNX_RUNTIME_REWRITES", "FusedAttention", "Rewritten", "rewrite_for_onnx_runtime", "rewrite_names"]
