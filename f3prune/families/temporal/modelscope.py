"""ModelScope text-to-video (and Zeroscope): a 3-D UNet with temporal attention and temporal convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f3prune.families._base import Family, LatentShape
from f3prune.families.temporal._video_unet import synthetic_inputs, token_grid


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    size = config.get("sample_size") or 32
    return LatentShape(16, size, size)


FAMILY = Family(
    name="modelscope",
    title="ModelScope T2V, Zeroscope",
    denoiser_class="UNet3DConditionModel",
    layout="temporal",
    sites=r"(transformer_in|.+\.temp_attentions\.\d+)\.transformer_blocks\.\d+\.attn[12]",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=synthetic_inputs,
    latents="sample",
    only_path_between_frames=False,
    notes="both attentions of a temporal block are temporal; temporal convolutions also relate frames",
)
