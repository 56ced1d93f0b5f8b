"""Tune-A-Video: an inflated image UNet with one temporal attention at the end of every transformer block."""

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
    size = config.get("sample_size") or 64
    # The published configurations tune on 24 frames.
    return LatentShape(24, size, size)


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
    name="tune_a_video",
    title="Tune-A-Video",
    denoiser_class="TuneAVideoUNet",
    layout="temporal",
    sites=r".+\.attn_temp",
    sparse_causal=r".+\.transformer_blocks\.\d+\.attn1",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    latents="sample",
    # Group norms outside the transformers span the frames, and spatial attention reads frames 0 and i-1.
    only_path_between_frames=False,
    notes="sparse-causal spatial attention and group norms also relate frames",
)
