"""What the declarations of video UNets share: ``sample`` of ``b c f h w``, CLIP text, one timestep for the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import LatentShape, TokenGrid
from f3prune.families._inputs import Draw, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    """Frames of ``sample``; a temporal site has one token for each."""
    return TokenGrid(int(arguments["sample"].shape[2]))


def synthetic_inputs(denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator) -> dict[str, Any]:
    """``sample``, ``timestep`` and ``encoder_hidden_states`` of 77 CLIP tokens."""
    import torch

    draw = Draw(denoiser, batch, generator)
    width = draw.config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]
    return {
        "sample": draw.latents(draw.config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, dtype=torch.int64),
        "encoder_hidden_states": draw.latents(text_tokens(77, width), width),
    }
