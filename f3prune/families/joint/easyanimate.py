"""EasyAnimate: text first, then frames, in one sequence, each with projections of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape
from f3prune.families._inputs import Draw, grid_of_patches, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(13, 64, 64)  # 49 frames of 512 × 512 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    draw = Draw(denoiser, batch, generator)
    config = draw.config
    inputs: dict[str, Any] = {
        "hidden_states": draw.latents(config.out_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500.0, batch),
        "encoder_hidden_states": draw.latents(text_tokens(256, config.text_embed_dim), config.text_embed_dim),
    }
    if (given := config.in_channels - config.out_channels) > 0:
        # A mask and what it leaves of a video, or the latents of a control video: both are appended to the channels.
        inputs["inpaint_latents"] = draw.latents(given, shape.frames, shape.height, shape.width)
    return inputs


def _pipeline_arguments(pipeline: Any) -> dict[str, Any]:
    # With guidance the pipelines need a negative prompt, and their default is none.
    return {"negative_prompt": ""}


def _unsupported(config: Mapping[str, Any]) -> str | None:
    if config["mmdit_layers"] >= config["num_layers"]:
        return None
    return (
        f"only {config['mmdit_layers']} of its {config['num_layers']} layers project text by themselves, and in the "
        "others the text takes the heads as they lie, which pruning moves: give one whose mmdit_layers is num_layers"
    )


FAMILY = Family(
    name="easyanimate",
    title="EasyAnimate",
    denoiser_class="EasyAnimateTransformer3DModel",
    layout="spatiotemporal",
    sites=r"transformer_blocks\.\d+\.attn1",
    token_grid=grid_of_patches,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    text="before",
    returns_text=True,
    pipeline_arguments=_pipeline_arguments,
    unsupported=_unsupported,
    notes="text first, then frames, in one sequence; text has projections of its own",
)
