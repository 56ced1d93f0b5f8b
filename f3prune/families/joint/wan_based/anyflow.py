"""AnyFlow: Wan's blocks with two timesteps for every frame, where it comes from and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, config_of, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    _, p_h, p_w = config_of(denoiser).patch_size
    _, frames, _, height, width = arguments["hidden_states"].shape
    return TokenGrid(int(frames), int(height) // p_h, int(width) // p_w)


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(21, 60, 104)  # 81 frames of 480 × 832 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    inputs: dict[str, Any] = {
        "hidden_states": draw.latents(shape.frames, config.in_channels, shape.height, shape.width),
        "timestep": draw.full(500.0, batch, shape.frames, dtype=torch.float32),
        "r_timestep": draw.full(250.0, batch, shape.frames, dtype=torch.float32),
        "encoder_hidden_states": draw.latents(text_tokens(512, config.text_dim), config.text_dim),
    }
    if config.image_dim is not None:
        inputs["encoder_hidden_states_image"] = draw.latents(257, config.image_dim)
    return inputs


FAMILY = Family(
    name="anyflow",
    title="AnyFlow",
    denoiser_class="AnyFlowTransformer3DModel",
    layout="spatiotemporal",
    sites=r"blocks\.\d+\.attn1",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    frame_axis=1,
    norm_across_heads=True,
    notes="as Wan, with the latents' frames before their channels; both timesteps are given for every frame",
)
