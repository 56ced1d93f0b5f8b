"""SkyReels-V2: Wan's blocks; block-causal (``num_frame_per_block`` > 1) models pass a mask to their sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f3prune.families._base import Family, LatentShape
from f3prune.families.joint.wan_based.wan import synthetic_inputs, token_grid


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(25, 68, 120)  # 97 frames of 544 × 960 pixels


FAMILY = Family(
    name="skyreels_v2",
    title="SkyReels-V2",
    denoiser_class="SkyReelsV2Transformer3DModel",
    layout="spatiotemporal",
    sites=r"blocks\.\d+\.attn1",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=synthetic_inputs,
    norm_across_heads=True,
    notes="as Wan; one timestep per sample (text-to-video and image-to-video, not diffusion forcing)",
)
