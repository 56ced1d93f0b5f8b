"""HunyuanVideo: dual-stream and single-stream blocks with text after the frames; the token refiner sees text alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, config_of, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    """Frames, and rows and columns of their tokens, of ``b c f h w`` latents under the configured patch sizes."""
    config = config_of(denoiser)
    p = config.patch_size
    frames, height, width = (int(size) for size in arguments["hidden_states"].shape[2:])
    return TokenGrid(frames // config.patch_size_t, height // p, width // p)


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(33, 90, 160)  # 129 frames of 720 × 1280 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    draw = Draw(denoiser, batch, generator)
    config = draw.config
    tokens = text_tokens(256, config.text_embed_dim)
    inputs: dict[str, Any] = {
        "hidden_states": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, batch),
        "encoder_hidden_states": draw.latents(tokens, config.text_embed_dim),
        "encoder_attention_mask": draw.padding_mask(tokens, draw.dtype),
        "pooled_projections": draw.latents(config.pooled_projection_dim),
    }
    if config.guidance_embeds:
        inputs["guidance"] = draw.full(6000.0, batch)  # guidance scale 6, times 1000
    return inputs


FAMILY = Family(
    name="hunyuan_video",
    title="HunyuanVideo",
    denoiser_class="HunyuanVideoTransformer3DModel",
    layout="spatiotemporal",
    sites=r"(single_)?transformer_blocks\.\d+\.attn",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    text="after",
    returns_text=True,
    notes="padded text is masked inside the sequence; single-stream blocks project attention and MLP with one layer",
)
