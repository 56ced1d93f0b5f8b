"""Kandinsky 5: self-attention over all frames, text by cross-attention, channels last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import AttentionNames, Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, config_of, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    p_t, p_h, p_w = config_of(denoiser).patch_size
    frames, height, width = (int(size) for size in arguments["hidden_states"].shape[1:4])
    return TokenGrid(frames // p_t, height // p_h, width // p_w)


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(31, 64, 96)  # 121 frames of 512 × 768 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    p_t, p_h, p_w = config.patch_size
    tokens = text_tokens(256, config.in_text_dim)
    # With an image to start from: the latents, the image's, and a mask of the frames that are given.
    channels = 2 * config.in_visual_dim + 1 if config.visual_cond else config.in_visual_dim
    sides = (shape.frames // p_t, shape.height // p_h, shape.width // p_w)
    return {
        "hidden_states": draw.latents(shape.frames, shape.height, shape.width, channels),
        "encoder_hidden_states": draw.latents(tokens, config.in_text_dim),
        "timestep": draw.full(500, batch),
        "pooled_projections": draw.latents(config.in_text_dim2),
        "visual_rope_pos": tuple(torch.arange(side, device=draw.device) for side in sides),
        "text_rope_pos": torch.arange(tokens, device=draw.device),
        "scale_factor": (1.0, 2.0, 2.0),
    }


def _unsupported(config: Mapping[str, Any]) -> str | None:
    if config.get("attention_type") == "nabla":
        return "its NABLA attention runs on flex attention with a block mask, which no backend of ours takes"
    return None


FAMILY = Family(
    name="kandinsky5",
    title="Kandinsky 5",
    denoiser_class="Kandinsky5Transformer3DModel",
    layout="spatiotemporal",
    sites=r"visual_transformer_blocks\.\d+\.self_attention",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    frame_axis=1,
    channel_axis=4,
    attention=AttentionNames(
        heads="num_heads",
        query_key=("to_query", "to_key"),
        value=("to_value",),
        outputs=("out_layer",),
        norms=("query_norm", "key_norm"),
    ),
    bare_output=True,
    unsupported=_unsupported,
    not_batched=("text_rope_pos",),
    notes="channels last; queries and keys are rounded to bf16 in any dtype; NABLA variants are refused",
)
