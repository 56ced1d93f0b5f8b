"""Passes over the ONNX graph, one per file."""

from __future__ import annotations

from f3prune.exporter.rewrites.graph.attention_scale import AttentionScale
from f3prune.exporter.rewrites.graph.boolean_where import BooleanWhere
from f3prune.exporter.rewrites.graph.cancelled_transposes import CancelledTransposes
from f3prune.exporter.rewrites.graph.constant_cast import ConstantCast
from f3prune.exporter.rewrites.graph.dropped_contribution import DroppedContribution
from f3prune.exporter.rewrites.graph.einsum_permutation import EinsumPermutation
from f3prune.exporter.rewrites.graph.key_transpose import KeyTranspose
from f3prune.exporter.rewrites.graph.no_op_squeeze import NoOpSqueeze
from f3prune.exporter.rewrites.graph.norm_before_transpose import NormBeforeTranspose
from f3prune.exporter.rewrites.graph.transposed_weights import TransposedWeights

__all__ = [
    "AttentionScale",
    "BooleanWhere",
    "CancelledTransposes",
    "ConstantCast",
    "DroppedContribution",
    "EinsumPermutation",
    "KeyTranspose",
    "NoOpSqueeze",
    "NormBeforeTranspose",
    "TransposedWeights",
]
