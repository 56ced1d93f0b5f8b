"""Wan Animate: Wan with the character's image as a frame before the video, and its face driven by another video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw
from f3prune.families.joint.wan_based.wan import synthetic_inputs, token_grid

if TYPE_CHECKING:
    import torch
    from torch import nn

_REFERENCES = 1
_FACE_FRAMES = 4
"""Frames of the driving video for every latent frame but the first, which has one."""


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    whole = token_grid(denoiser, arguments)
    return TokenGrid(whole.frames - _REFERENCES, whole.height, whole.width, _REFERENCES)


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(20, 90, 160)  # segments of 77 frames of 720 × 1280 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    draw = Draw(denoiser, batch, generator)
    config = draw.config
    whole = LatentShape(_REFERENCES + shape.frames, shape.height, shape.width)
    face = _FACE_FRAMES * (shape.frames - 1) + 1
    edge = config.motion_encoder_size
    return {
        **synthetic_inputs(denoiser, whole, batch, generator),
        "pose_hidden_states": draw.latents(config.latent_channels, shape.frames, shape.height, shape.width),
        "face_pixel_values": draw.latents(3, face, edge, edge),
    }


FAMILY = Family(
    name="wan_animate",
    title="Wan Animate",
    denoiser_class="WanAnimateTransformer3DModel",
    layout="spatiotemporal",
    sites=r"blocks\.\d+\.attn1",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    text="before",
    norm_across_heads=True,
    notes="the character's image stands before the frames, which all keep seeing it",
)
