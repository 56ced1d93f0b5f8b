"""Stable Video Diffusion: temporal blocks blended with spatial ones; their attn2 is cross-attention to the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw

if TYPE_CHECKING:
    import torch
    from torch import nn


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    return TokenGrid(int(arguments["sample"].shape[1]))


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(config["num_frames"], 72, 128)  # 576 × 1024 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    width = config.cross_attention_dim
    noisy = draw.latents(shape.frames, config.out_channels, shape.height, shape.width)
    # The pipeline repeats the latents of the image for every frame and appends them to the channels.
    image = draw.latents(1, config.in_channels - config.out_channels, shape.height, shape.width)
    # Frames per second - 1, motion bucket, noise augmentation: the pipeline's defaults.
    time_ids = torch.tensor([[6.0, 127.0, 0.02]], dtype=draw.dtype, device=draw.device).repeat(batch, 1)
    return {
        "sample": torch.cat([noisy, image.expand(-1, shape.frames, -1, -1, -1)], dim=2),
        "timestep": draw.full(0.5, dtype=torch.float32),  # ¼ log σ, not a step number
        "encoder_hidden_states": draw.latents(1, width if isinstance(width, int) else width[0]),
        "added_time_ids": time_ids,
    }


FAMILY = Family(
    name="svd",
    title="Stable Video Diffusion",
    denoiser_class="UNetSpatioTemporalConditionModel",
    layout="temporal",
    sites=r".+\.temporal_transformer_blocks\.\d+\.attn1",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    latents="sample",
    frame_axis=1,
    only_path_between_frames=False,
    timestep_range=(1.638, -1.553),  # sigma from 700 down to 0.002
    notes="image to video; temporal residual blocks also relate frames; the timestep is ¼ log σ",
)
