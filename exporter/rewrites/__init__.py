"""Small rewrites that make every family export, one per file.

Two kinds. Those at trace time are context managers that change something while ``torch.export`` runs and put it back.
Those on the graph are passes over the ONNX model. Each says why it exists, what it requires and what it ensures, and
has a test that compares it with what it replaces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from f3prune.exporter.rewrites.attention_scale import AttentionScale
from f3prune.exporter.rewrites.boolean_mask import BooleanMaskAsBias
from f3prune.exporter.rewrites.boolean_where import BooleanWhere
from f3prune.exporter.rewrites.cancelled_transposes import CancelledTransposes
from f3prune.exporter.rewrites.constant_cast import ConstantCast
from f3prune.exporter.rewrites.dropped_contribution import DroppedContribution
from f3prune.exporter.rewrites.einsum_permutation import EinsumPermutation
from f3prune.exporter.rewrites.interleaved_assignment import InterleavedAssignment
from f3prune.exporter.rewrites.key_transpose import KeyTranspose
from f3prune.exporter.rewrites.mochi_padding import mochi_masks_padding
from f3prune.exporter.rewrites.no_op_squeeze import NoOpSqueeze
from f3prune.exporter.rewrites.norm_before_transpose import NormBeforeTranspose
from f3prune.exporter.rewrites.slice_assignment import SliceAssignment
from f3prune.exporter.rewrites.transposed_weights import TransposedWeights
from f3prune.exporter.rewrites.upsample_any_batch import upsample_any_batch

TRACE_REWRITES: tuple[Callable[[], contextlib.AbstractContextManager[object]], ...] = (
    SliceAssignment,
    InterleavedAssignment,
    BooleanMaskAsBias,
    mochi_masks_padding,
    upsample_any_batch,
)
"""Applied to every model while it is traced; each leaves alone what it is not about."""

GRAPH_REWRITES = (
    BooleanWhere,
    EinsumPermutation,
    NoOpSqueeze,
    AttentionScale,
    KeyTranspose,
    NormBeforeTranspose,
    CancelledTransposes,
    TransposedWeights,
    ConstantCast,
)
"""Applied to every ONNX graph, in order."""

FOLDED_REWRITES = (DroppedContribution,)
"""Applied after constants are folded."""


@contextlib.contextmanager
def traced_with_rewrites() -> Iterator[None]:
    """Hold all trace-time rewrites active."""
    with contextlib.ExitStack() as stack:
        for rewrite in TRACE_REWRITES:
            stack.enter_context(rewrite())
        yield


__all__ = [
    "GRAPH_REWRITES",
    "TRACE_REWRITES",
    "AttentionScale",
    "BooleanMaskAsBias",
    "BooleanWhere",
    "CancelledTransposes",
    "ConstantCast",
    "DroppedContribution",
    "EinsumPermutation",
    "InterleavedAssignment",
    "KeyTranspose",
    "NoOpSqueeze",
    "NormBeforeTranspose",
    "SliceAssignment",
    "TransposedWeights",
    "mochi_masks_padding",
    "traced_with_rewrites",
    "upsample_any_batch",
]
