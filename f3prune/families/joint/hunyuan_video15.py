"""HunyuanVideo 1.5: dual-stream blocks; image, glyph and prompt tokens after the frames, padding hidden from all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape
from f3prune.families._inputs import Draw, text_tokens
from f3prune.families.joint.hunyuan_video import token_grid

if TYPE_CHECKING:
    import torch
    from torch import nn


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    # 121 frames of 480 × 848 or 720 × 1280 pixels, 16 pixels to a latent.
    return LatentShape(31, 30, 53) if config["target_size"] <= 640 else LatentShape(31, 45, 80)


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    draw = Draw(denoiser, batch, generator)
    config = draw.config
    prompt = text_tokens(1000, config.text_embed_dim)
    glyphs = text_tokens(256, config.text_embed_2_dim)
    image = draw.latents(text_tokens(729, config.image_embed_dim), config.image_embed_dim)
    inputs: dict[str, Any] = {
        "hidden_states": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, batch),
        "encoder_hidden_states": draw.latents(prompt, config.text_embed_dim),
        "encoder_attention_mask": draw.padding_mask(prompt, draw.dtype),
        "encoder_hidden_states_2": draw.latents(glyphs, config.text_embed_2_dim),
        "encoder_attention_mask_2": draw.padding_mask(glyphs, draw.dtype),
        # Text-to-video has no image, which the model takes from zeros.
        "image_embeds": image * 0 if config.task_type == "t2v" else image,
    }
    if config.use_meanflow:
        inputs["timestep_r"] = draw.full(450, batch)
    return inputs


FAMILY = Family(
    name="hunyuan_video15",
    title="HunyuanVideo 1.5",
    denoiser_class="HunyuanVideo15Transformer3DModel",
    layout="spatiotemporal",
    sites=r"transformer_blocks\.\d+\.attn",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    text="after",
    returns_text=True,
    padding_asks_nothing=True,
    notes="image, glyphs and prompt behind the frames; padding neither asks nor answers",
)
