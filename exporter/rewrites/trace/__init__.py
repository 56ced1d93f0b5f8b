"""What changes while ``torch.export`` runs: context managers that put back what they change, one per file."""

from __future__ import annotations

from f3prune.exporter.rewrites.trace.boolean_mask import BooleanMaskAsBias
from f3prune.exporter.rewrites.trace.framepack_text import framepack_masks_padding
from f3prune.exporter.rewrites.trace.hunyuan_video15_text import hunyuan_video15_masks_padding
from f3prune.exporter.rewrites.trace.interleaved_assignment import InterleavedAssignment
from f3prune.exporter.rewrites.trace.mochi_padding import mochi_masks_padding
from f3prune.exporter.rewrites.trace.slice_assignment import SliceAssignment
from f3prune.exporter.rewrites.trace.split_rotary import split_rotary_in_one_piece
from f3prune.exporter.rewrites.trace.upsample_any_batch import upsample_any_batch

__all__ = [
    "BooleanMaskAsBias",
    "InterleavedAssignment",
    "SliceAssignment",
    "framepack_masks_padding",
    "hunyuan_video15_masks_padding",
    "mochi_masks_padding",
    "split_rotary_in_one_piece",
    "upsample_any_batch",
]
