"""Cosmos 1 (Predict1), 2 and 2.5: self-attention over all frames, text by cross-attention."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape
from f3prune.families._inputs import Draw, text_tokens
from f3prune.families.joint.wan_based.wan import token_grid

if TYPE_CHECKING:
    import torch
    from torch import nn

_COMPRESSION = 8
"""Pixels of the padding mask for a latent unit."""


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    # 121 frames of 704 × 1280 pixels at eight to a latent frame; Cosmos 2 and 2.5: 93 frames at four.
    return LatentShape(16 if config["extra_pos_embed_type"] else 24, 88, 160)


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    conditioned = config.in_channels > config.out_channels
    first = config.extra_pos_embed_type is not None
    width = config.crossattn_proj_in_channels if config.use_crossattn_projection else config.text_embed_dim
    text = draw.latents(text_tokens(512, width), width)
    inputs: dict[str, Any] = {
        "hidden_states": draw.latents(config.out_channels, shape.frames, shape.height, shape.width),
        "encoder_hidden_states": text,
    }
    if first or not conditioned:
        inputs["timestep"] = draw.full(0.5, batch)
    else:
        # A timestep for every frame: given ones are nearly clean.
        inputs["timestep"] = draw.full(0.5, batch, 1, shape.frames, 1, 1, dtype=torch.float32)
    if config.img_context_dim_in:
        image = draw.latents(config.img_context_num_tokens, config.img_context_dim_in)
        inputs["encoder_hidden_states"] = (text, image)
    if conditioned:
        mask = torch.zeros(batch, 1, shape.frames, shape.height, shape.width, dtype=draw.dtype, device=draw.device)
        mask[:, :, 0] = 1
        inputs["condition_mask"] = mask
    if not config.use_crossattn_projection:
        inputs["fps"] = 30 if first else 16
    if config.concat_padding_mask:
        size = (shape.height * _COMPRESSION, shape.width * _COMPRESSION)
        inputs["padding_mask"] = torch.zeros(1, 1, *size, dtype=draw.dtype, device=draw.device)
    return inputs


def _unsupported(config: Mapping[str, Any]) -> str | None:
    if not config["concat_padding_mask"] or importlib.util.find_spec("torchvision") is not None:
        return None
    return "it resizes its padding mask with torchvision, which is not installed: pip install torchvision"


FAMILY = Family(
    name="cosmos",
    title="Cosmos 1, 2 and 2.5",
    denoiser_class="CosmosTransformer3DModel",
    layout="spatiotemporal",
    sites=r"transformer_blocks\.\d+\.attn1",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    timestep_range=(0.99, 0.01),
    not_batched=("padding_mask",),
    unsupported=_unsupported,
    notes="text and image context by cross-attention; 2 and 2.5 have a timestep for every frame",
)
