"""CogVideo: image tokens generated frame after frame; the temporal channel of every layer is a site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import config_of

if TYPE_CHECKING:
    import torch
    from torch import nn


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    per_frame = int(config_of(denoiser).frame_len)
    video = int(arguments["tokens"].shape[1]) - int(arguments["text_mask"].shape[1])
    return TokenGrid(video // per_frame, 1, per_frame)


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    side = round(config["frame_len"] ** 0.5)
    return LatentShape(config["frame_num"], side, side)


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    """Seeded random tokens; ``shape`` says how many frames."""
    import torch

    config = config_of(denoiser)
    length = config.text_len + shape.frames * config.frame_len
    text = torch.arange(config.text_len)
    video = 512 + torch.arange(shape.frames * config.frame_len)
    device = next(denoiser.parameters()).device
    return {
        "tokens": torch.randint(config.vocab_size, (batch, length), generator=generator).to(device),
        "position_ids": torch.cat([text, video])[None].expand(batch, -1).to(device),
        "text_mask": torch.ones(batch, config.text_len, dtype=torch.int64, device=device),
    }


FAMILY = Family(
    name="cogvideo",
    title="CogVideo",
    denoiser_class="CogVideo",
    layout="spatiotemporal",
    sites=r"layers\.\d+\.temporal",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    text="before",
    latents="tokens",
    frame_axis=1,
    text_queries=False,
    autoregressive=True,
    timestep_range=(0.0, 0.0),
    notes="generates tokens frame after frame; units layer and head; mode drop hands over to the spatial channel",
)
