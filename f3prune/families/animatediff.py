"""AnimateDiff: a 2-D UNet with motion modules, whose blocks attend over frames twice (attn1 and attn2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    return TokenGrid(int(arguments["sample"].shape[2]), 1)


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    size = config.get("sample_size") or 64
    return LatentShape(min(16, config["motion_max_seq_length"]), size, size)


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    width = config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]
    # The pipeline repeats each prompt for every frame: `(b f) l d`, frames innermost.
    text = draw.latents(text_tokens(77, width), width)
    return {
        "sample": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, dtype=torch.int64),
        "encoder_hidden_states": text.repeat_interleave(shape.frames, dim=0),
    }


FAMILY = Family(
    name="animatediff",
    title="AnimateDiff",
    denoiser_class="UNetMotionModel",
    layout="temporal",
    sites=r".+\.motion_modules\.\d+\.transformer_blocks\.\d+\.attn[12]",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    latents="sample",
    # A motion module's group norm takes its statistics over all frames.
    only_path_between_frames=False,
    notes="both attentions of a motion block are temporal; its group norm also spans the frames",
)
