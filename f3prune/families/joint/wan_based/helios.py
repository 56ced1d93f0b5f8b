"""Helios: Wan's blocks over a chunk of frames, with the history before it in three coarser and coarser patch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape
from f3prune.families._inputs import Draw, text_tokens
from f3prune.families.joint.wan_based.wan import token_grid

if TYPE_CHECKING:
    import torch
    from torch import nn

_LONG, _MID, _SHORT = 16, 2, 1
"""Latent frames of the history in ``HeliosPipeline``; the first frame of the video stands before the short one."""
_CHUNK = 9
"""Latent frames that are made at a time."""


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(_CHUNK, 48, 80)  # a chunk of 33 frames of 384 × 640 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    tokens = text_tokens(512, config.text_dim)
    inputs: dict[str, Any] = {
        "hidden_states": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, batch, dtype=torch.int64),
        "encoder_hidden_states": draw.latents(tokens, config.text_dim),
    }
    if not config.has_multi_term_memory_patch:
        return inputs
    places = torch.arange(1 + _LONG + _MID + _SHORT + shape.frames, device=draw.device)[None]
    first, long, mid, last, video = places.split([1, _LONG, _MID, _SHORT, shape.frames], dim=1)
    inputs["indices_hidden_states"] = video
    for name, indices in (("short", torch.cat([first, last], dim=1)), ("mid", mid), ("long", long)):
        inputs[f"indices_latents_history_{name}"] = indices
        history = draw.latents(config.in_channels, indices.shape[1], shape.height, shape.width)
        inputs[f"latents_history_{name}"] = history
    return inputs


def _frames_made(frames: int, temporal: int) -> int:
    # Chunks of nine latent frames, each decoded by itself to as many as a first chunk gives.
    chunk = (_CHUNK - 1) * temporal + 1
    made = -(-frames // chunk) * chunk
    return (made - 1) // temporal * temporal + 1


FAMILY = Family(
    name="helios",
    title="Helios",
    denoiser_class="HeliosTransformer3DModel",
    layout="spatiotemporal",
    sites=r"blocks\.\d+\.attn1",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    text="before",
    norm_across_heads=True,
    qk_heads_interchangeable=False,
    frames_made=_frames_made,
    not_batched=(
        "indices_hidden_states",
        *(f"indices_latents_history_{name}" for name in ("short", "mid", "long")),
    ),
    notes="the history stands before the frames, which all keep seeing it; its keys are scaled head by head",
)
