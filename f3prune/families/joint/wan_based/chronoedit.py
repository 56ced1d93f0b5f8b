"""ChronoEdit: Wan's blocks, made to edit an image by the last frame of a short video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f3prune.families._base import Family, LatentShape
from f3prune.families.joint.wan_based.wan import synthetic_inputs, token_grid


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(2, 60, 104)  # the first and the last frame of a video of 480 × 832 pixels


def _frames_made(frames: int, temporal: int) -> int:
    # ChronoEditPipeline makes two latent frames, whatever it is asked for, unless temporal reasoning is switched on.
    return temporal + 1


FAMILY = Family(
    name="chronoedit",
    title="ChronoEdit",
    denoiser_class="ChronoEditTransformer3DModel",
    layout="spatiotemporal",
    sites=r"blocks\.\d+\.attn1",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=synthetic_inputs,
    norm_across_heads=True,
    frames_made=_frames_made,
    notes="as Wan; its pipeline makes two latent frames, the first and the last",
)
