"""Framepack: HunyuanVideo's blocks over a window of frames, with the frames before it packed in front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape
from f3prune.families._inputs import Draw, text_tokens
from f3prune.families.joint.hunyuan_video import token_grid

if TYPE_CHECKING:
    import torch
    from torch import nn

_KERNELS = {"latents_clean": (1, 2, 2), "latents_history_2x": (2, 4, 4), "latents_history_4x": (4, 8, 8)}
"""Frames, rows and columns of latents that become one history token."""
_FRAMES = {"latents_clean": 2, "latents_history_2x": 2, "latents_history_4x": 16}


def _history_tokens(denoiser: nn.Module, arguments: Mapping[str, Any]) -> int:
    """Tokens in front of the video: what is left of earlier frames, which everyone may see."""
    count = 0
    for name, kernel in _KERNELS.items():
        latents = arguments.get(name)
        if latents is not None:
            frames, height, width = (-(-int(size) // k) for size, k in zip(latents.shape[2:], kernel, strict=True))
            count += frames * height * width
    return count


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(9, 64, 96)  # a window of 33 frames of 512 × 768 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    tokens = text_tokens(256, config.text_embed_dim)
    # One image before all, then the history, nearest last, then the window.
    counts = (1, _FRAMES["latents_history_4x"], _FRAMES["latents_history_2x"], 1, shape.frames)
    first, far, near, last, window = torch.arange(sum(counts), device=draw.device).split(counts)
    past = {
        name: draw.latents(config.in_channels, frames, shape.height, shape.width) for name, frames in _FRAMES.items()
    }
    inputs: dict[str, Any] = {
        "hidden_states": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, batch),
        "encoder_hidden_states": draw.latents(tokens, config.text_embed_dim),
        "encoder_attention_mask": draw.padding_mask(tokens, draw.dtype),
        "pooled_projections": draw.latents(config.pooled_projection_dim),
        "image_embeds": draw.latents(text_tokens(729, config.image_proj_dim), config.image_proj_dim),
        "indices_latents": window,
        "latents_clean": past["latents_clean"],
        "indices_latents_clean": torch.cat([first, last]),
        "latents_history_2x": past["latents_history_2x"],
        "indices_latents_history_2x": near,
        "latents_history_4x": past["latents_history_4x"],
        "indices_latents_history_4x": far,
    }
    if config.guidance_embeds:
        inputs["guidance"] = draw.full(6000.0, batch)  # guidance scale 6, times 1000
    return inputs


FAMILY = Family(
    name="framepack",
    title="Framepack",
    denoiser_class="HunyuanVideoFramepackTransformer3DModel",
    layout="spatiotemporal",
    sites=r"(single_)?transformer_blocks\.\d+\.attn",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    whole_windows=True,
    text="around",
    tokens_before=_history_tokens,
    returns_text=True,
    not_batched=(
        "indices_latents",
        "indices_latents_clean",
        "indices_latents_history_2x",
        "indices_latents_history_4x",
    ),
    notes="a window of frames at a time; earlier frames in front and text behind are seen by every frame",
)
