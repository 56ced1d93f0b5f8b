"""What changes while ``torch.export`` runs: context managers that put back what they change, one per file."""

from __future__ import annotations

from f3prune.exporter.rewrites.trace.boolean_mask import BooleanMaskAsBias
from f3prune.exporter.rewrites.trace.framepack_text import framepack_masks_padding
from f3prune.exporter.rewrites.trace.householder_qr import HouseholderQR
from f3prune.exporter.rewrites.trace.hunyuan_video15_text import hunyuan_video15_masks_padding
from f3prune.exporter.rewrites.trace.interleaved_assignment import InterleavedAssignment
from f3prune.exporter.rewrites.trace.long_half_attention import LongHalfAttention
from f3prune.exporter.rewrites.trace.mochi_padding import mochi_masks_padding
from f3prune.exporter.rewrites.trace.one_sample_positions import positions_of_one_sample
from f3prune.exporter.rewrites.trace.rotation_by_angles import rotation_by_angles
from f3prune.exporter.rewrites.trace.single_repeat import SingleRepeat
from f3prune.exporter.rewrites.trace.slice_assignment import SliceAssignment
from f3prune.exporter.rewrites.trace.split_rotary import split_rotary_in_one_piece
from f3prune.exporter.rewrites.trace.upsample_any_batch import upsample_any_batch
from f3prune.exporter.rewrites.trace.whole_split import WholeSplit

__all__ = [
    "BooleanMaskAsBias",
    "HouseholderQR",
    "InterleavedAssignment",
    "LongHalfAttention",
    "SingleRepeat",
    "SliceAssignment",
    "WholeSplit",
    "framepack_masks_padding",
    "mochi_masks_padding",
    "positions_of_one_sample",
    "rotation_by_angles",
    "hunyuan_video15_masks_padding",
    "split_rotary_in_one_piece",
    "upsample_any_batch",
]
