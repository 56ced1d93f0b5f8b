"""Mochi 1: joint attention over frames and the unpadded text, one attention call per sample of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape
from f3prune.families._inputs import Draw, grid_of_patches

if TYPE_CHECKING:
    import torch
    from torch import nn


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(28, 60, 106)  # 163 frames of 480 × 848 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    return {
        "hidden_states": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "encoder_hidden_states": draw.latents(config.max_sequence_length, config.text_embed_dim),
        "timestep": draw.full(500, batch),
        "encoder_attention_mask": draw.padding_mask(config.max_sequence_length, torch.bool),
    }


def _pipeline_arguments(pipeline: Any) -> dict[str, Any]:
    return {"max_sequence_length": pipeline.transformer.config.max_sequence_length}


FAMILY = Family(
    name="mochi",
    title="Mochi 1",
    denoiser_class="MochiTransformer3DModel",
    layout="spatiotemporal",
    sites=r"transformer_blocks\.\d+\.attn1",
    token_grid=grid_of_patches,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    text="after",
    returns_text=True,
    qk_heads_interchangeable=False,
    pipeline_arguments=_pipeline_arguments,
    notes="learned rotary frequencies for each head; padding is cut out of every sample before attention",
)
