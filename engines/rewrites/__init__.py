"""What the ONNX Runtime build changes in an exported graph, one rewrite per file.

The exported graph stays what every backend takes; these use operators that only ONNX Runtime has. Weights are not
touched: the rewritten graph refers into the exported graph's data file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from f3prune.engines.rewrites.fused_attention import FusedAttention


@dataclass(frozen=True)
class Rewritten:
    """Attention operators of a rewritten graph.

    Attributes:
        fused: those that never hold a score matrix.
        unfused: names of the softmaxes that are left: few keys, a mask of its own for every query, or one query.
    """

    fused: int
    unfused: tuple[str, ...]


def rewrite_names(fused_attention: int | None) -> list[str]:
    """Names and versions of the rewrites that :func:`rewrite_for_onnx_runtime` applies: an engine depends on them."""
    return [] if fused_attention is None else [f"FusedAttention/{FusedAttention.VERSION} from {fused_attention} keys"]


def rewrite_for_onnx_runtime(source: Path, target: Path, fused_attention: int) -> Rewritten:
    """Write the graph ``source`` to ``target`` with the rewrites applied; its data files belong beside it.

    Args:
        source: an exported graph; its weights are not read.
        target: file to write, in a directory that has or will have the same data files.
        fused_attention: see ``BuildConfig``.
    """
    import onnx_ir as ir

    model = ir.load(source)
    FusedAttention(fused_attention)(model)
    ir.save(model, target)
    names: dict[str, list[str]] = {"MultiHeadAttention": [], "Softmax": []}
    for node in model.graph:
        names.get(node.op_type, []).append(str(node.name))
    return Rewritten(len(names["MultiHeadAttention"]), tuple(names["Softmax"]))


__all__ = ["FusedAttention", "Rewritten", "rewrite_for_onnx_runtime", "rewrite_names"]
