"""Tune-A-Video: an inflated image UNet with one temporal attention at the end of every transformer block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f3prune.families._base import Family, LatentShape
from f3prune.families.temporal._video_unet import synthetic_inputs, token_grid


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    size = config.get("sample_size") or 64
    # The published configurations tune on 24 frames.
    return LatentShape(24, size, size)


FAMILY = Family(
    name="tune_a_video",
    title="Tune-A-Video",
    denoiser_class="TuneAVideoUNet",
    layout="temporal",
    sites=r".+\.attn_temp",
    sparse_causal=r".+\.transformer_blocks\.\d+\.attn1",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=synthetic_inputs,
    latents="sample",
    # Group norms outside the transformers span the frames, and spatial attention reads frames 0 and i-1.
    only_path_between_frames=False,
    notes="sparse-causal spatial attention and group norms also relate frames",
)
