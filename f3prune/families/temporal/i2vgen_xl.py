"""I2VGen-XL: ModelScope's blocks, conditioned on an image.

``image_latents_temporal_encoder.attn1`` is not a site although it attends along the frame axis: its tokens are the
conditioning, of which only frame 0 is an image and the others are constants that count frames. It never sees the
video that is being generated, it is how the image reaches frames 1 and later, and it has four channels: pruning it
would cost the conditioning and save nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape
from f3prune.families._inputs import Draw, text_tokens
from f3prune.families.temporal._video_unet import token_grid

if TYPE_CHECKING:
    import torch
    from torch import nn


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(16, 88, 160)  # 16 frames of 704 × 1280 pixels


def _image_latents(draw: Draw, shape: LatentShape) -> torch.Tensor:
    """``b c f h w``: the image in frame 0, then the frame positions 1/(f-1) … 1, as the pipeline stacks them."""
    import torch

    image = draw.latents(draw.config.in_channels, 1, shape.height, shape.width)
    positions = [torch.ones_like(image) * ((i + 1) / (shape.frames - 1)) for i in range(shape.frames - 1)]
    return torch.cat([image, *positions], dim=2)


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    width = config.cross_attention_dim
    return {
        "sample": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, dtype=torch.int64),
        "fps": draw.full(16, batch, dtype=torch.int64),
        "image_latents": _image_latents(draw, shape),
        "image_embeddings": draw.latents(1, width),
        "encoder_hidden_states": draw.latents(text_tokens(77, width), width),
    }


FAMILY = Family(
    name="i2vgen_xl",
    title="I2VGen-XL",
    denoiser_class="I2VGenXLUNet",
    layout="temporal",
    sites=r"(transformer_in|.+\.temp_attentions\.\d+)\.transformer_blocks\.\d+\.attn[12]",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    latents="sample",
    only_path_between_frames=False,
    notes="as ModelScope; the encoder of the conditioning image is left whole",
)
