"""Latte: alternating spatial and temporal transformer blocks; only the temporal ones relate frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    return TokenGrid(int(arguments["hidden_states"].shape[2]))


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(config["video_length"], config["sample_size"], config["sample_size"])


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    return {
        "hidden_states": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, batch, dtype=torch.int64),
        "encoder_hidden_states": draw.latents(text_tokens(120, config.caption_channels), config.caption_channels),
        "enable_temporal_attentions": True,
    }


def _pipeline_arguments(pipeline: Any) -> dict[str, Any]:
    """The pipeline's own size is that of the published model, whatever the transformer was made for."""
    config = pipeline.transformer.config
    edge = config.sample_size * pipeline.vae_scale_factor
    return {"video_length": config.video_length, "height": edge, "width": edge}


FAMILY = Family(
    name="latte",
    title="Latte",
    denoiser_class="LatteTransformer3DModel",
    layout="temporal",
    sites=r"temporal_transformer_blocks\.\d+\.attn1",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    pipeline_arguments=_pipeline_arguments,
    notes="the number of frames is fixed by the configuration (video_length)",
)
