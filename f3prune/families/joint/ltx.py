"""LTX-Video: packed tokens, text by cross-attention, rotary frequencies that differ from head to head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.core.errors import InputError
from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    if arguments.get("num_frames") is not None:
        return TokenGrid(*(int(arguments[name]) for name in ("num_frames", "height", "width")))
    # LTXConditionPipeline gives every token its place instead: b (t h w) n, frames outermost.
    times, rows, _ = arguments["video_coords"][0]
    frames = _runs(times)
    per_frame = times.numel() // frames
    height = _runs(rows[:per_frame])
    grid = TokenGrid(frames, height, per_frame // height)
    if grid.video_tokens != times.numel() or not bool((times.view(frames, -1) == times.view(frames, -1)[:, :1]).all()):
        raise InputError(
            "the tokens of this call are no whole frames, as with conditions on later frames: give at most an image, "
            "which is the first frame"
        )
    return grid


def _runs(values: torch.Tensor) -> int:
    """How often a value differs from the one before it, and one."""
    return int((values[1:] != values[:-1]).sum()) + 1


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(21, 16, 22)  # 161 frames of 512 × 704 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    tokens = text_tokens(128, config.caption_channels)
    return {
        "hidden_states": draw.latents(shape.frames * shape.height * shape.width, config.in_channels),
        "encoder_hidden_states": draw.latents(tokens, config.caption_channels),
        "timestep": draw.full(500.0, batch, dtype=torch.float32),
        "encoder_attention_mask": draw.padding_mask(tokens, torch.bool),
        "num_frames": shape.frames,
        "height": shape.height,
        "width": shape.width,
        # Compression of the video autoencoder in time (per second, at 25 frames per second) and space.
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


FAMILY = Family(
    name="ltx",
    title="LTX-Video",
    denoiser_class="LTXVideoTransformer3DModel",
    layout="spatiotemporal",
    sites=r"transformer_blocks\.\d+\.attn1",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    frame_axis=1,
    norm_across_heads=True,
    qk_heads_interchangeable=False,
    notes="rotary frequencies and query/key norms run across heads, so query/key heads cannot be reordered",
)
