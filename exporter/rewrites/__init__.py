"""Small rewrites that make every family export, one per file.

Two kinds. Those of ``trace`` are context managers that change something while ``torch.export`` runs and put it back.
Those of ``graph`` are passes over the ONNX model. Each says why it exists, what it requires and what it ensures, and
has a test that compares it with what it replaces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from f3prune.exporter.rewrites.graph import (
    AttentionScale,
    BooleanWhere,
    CancelledTransposes,
    ConstantCast,
    DroppedContribution,
    EinsumPermutation,
    KeyTranspose,
    NoOpSqueeze,
    NormBeforeTranspose,
    TransposedWeights,
)
from f3prune.exporter.rewrites.trace import (
    BooleanMaskAsBias,
    HouseholderQR,
    InterleavedAssignment,
    LongHalfAttention,
    SingleRepeat,
    SliceAssignment,
    WholeSplit,
    framepack_masks_padding,
    hunyuan_video15_masks_padding,
    mochi_masks_padding,
    positions_of_one_sample,
    rotation_by_angles,
    split_rotary_in_one_piece,
    upsample_any_batch,
)

TRACE_REWRITES: tuple[Callable[[], contextlib.AbstractContextManager[object]], ...] = (
    LongHalfAttention,
    SliceAssignment,
    InterleavedAssignment,
    BooleanMaskAsBias,
    SingleRepeat,
    WholeSplit,
    HouseholderQR,
    framepack_masks_padding,
    hunyuan_video15_masks_padding,
    mochi_masks_padding,
    split_rotary_in_one_piece,
    upsample_any_batch,
    positions_of_one_sample,
    rotation_by_angles,
)
"""Applied to every model while it is traced, the last first; each leaves alone what it is not about."""

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
    "HouseholderQR",
    "InterleavedAssignment",
    "KeyTranspose",
    "LongHalfAttention",
    "NoOpSqueeze",
    "NormBeforeTranspose",
    "SingleRepeat",
    "SliceAssignment",
    "TransposedWeights",
    "WholeSplit",
    "framepack_masks_padding",
    "mochi_masks_padding",
    "positions_of_one_sample",
    "rotation_by_angles",
    "hunyuan_video15_masks_padding",
    "split_rotary_in_one_piece",
    "traced_with_rewrites",
    "upsample_any_batch",
]
