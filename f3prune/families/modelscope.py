"""ModelScope text-to-video (and Zeroscope): a 3-D UNet with temporal attention and temporal convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    return TokenGrid(int(arguments["sample"].shape[2]), 1)


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    size = config.get("sample_size") or 32
    return LatentShape(16, size, size)


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    width = config.cross_attention_dim
    return {
        "sample": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, dtype=torch.int64),
        "encoder_hidden_states": draw.latents(text_tokens(77, width), width),
    }


FAMILY = Family(
    name="modelscope",
    title="ModelScope T2V, Zeroscope",
    denoiser_class="UNet3DConditionModel",
    layout="temporal",
    sites=r"(transformer_in|.+\.temp_attentions\.\d+)\.transformer_blocks\.\d+\.attn[12]",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    latents="sample",
    only_path_between_frames=False,
    notes="both attentions of a temporal block are temporal; temporal convolutions also relate frames",
)
