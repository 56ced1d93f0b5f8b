"""Wan 2.1 and 2.2: self-attention over all frames, text by cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, config_of, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    """Frames, and rows and columns of their tokens, of ``b c f h w`` latents under a ``(t, h, w)`` patch size."""
    p_t, p_h, p_w = config_of(denoiser).patch_size
    frames, height, width = (int(size) for size in arguments["hidden_states"].shape[2:])
    return TokenGrid(frames // p_t, height // p_h, width // p_w)


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(21, 60, 104)  # 81 frames of 480 × 832 pixels


def synthetic_inputs(denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator) -> dict[str, Any]:
    """Latents ``b c f h w``, text ``b l d``, one integer timestep per sample; image embeddings if it takes any."""
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    # Image-conditioned models split their context at token 512, so their text cannot be shorter.
    tokens = 512 if config.added_kv_proj_dim is not None else text_tokens(512, config.text_dim)
    inputs: dict[str, Any] = {
        "hidden_states": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "timestep": draw.full(500, batch, dtype=torch.int64),
        "encoder_hidden_states": draw.latents(tokens, config.text_dim),
    }
    if config.image_dim is not None and config.pos_embed_seq_len is not None:
        # First and last frame: two images per sample, side by side on the batch axis.
        images = draw.normal(2 * batch, config.pos_embed_seq_len // 2, config.image_dim)
        inputs["encoder_hidden_states_image"] = images
    elif config.image_dim is not None:
        inputs["encoder_hidden_states_image"] = draw.latents(257, config.image_dim)
    return inputs


FAMILY = Family(
    name="wan",
    title="Wan 2.1 and 2.2",
    denoiser_class="WanTransformer3DModel",
    layout="spatiotemporal",
    sites=r"blocks\.\d+\.attn1",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=synthetic_inputs,
    norm_across_heads=True,
    notes="queries and keys are normalised over all heads together",
)
