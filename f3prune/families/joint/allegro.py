"""Allegro: self-attention over all frames with 3-D rotary positions, text by cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape
from f3prune.families._inputs import Draw, grid_of_patches, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(config["sample_frames"], config["sample_height"], config["sample_width"])


def _rotary(config: Any, shape: LatentShape, device: torch.device) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Cosine/sine tables of axes t, h, w, and every token's position on each (``1 n``), as in ``AllegroPipeline``."""
    import torch
    from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro

    size = (shape.height // config.patch_size, shape.width // config.patch_size)
    *tables, grid_t, grid_h, grid_w = get_3d_rotary_pos_embed_allegro(
        embed_dim=config.attention_head_dim,
        crops_coords=((0, 0), size),
        grid_size=size,
        temporal_size=shape.frames,
        interpolation_scale=(
            config.interpolation_scale_t,
            config.interpolation_scale_h,
            config.interpolation_scale_w,
        ),
        device=device,
    )
    positions = torch.cartesian_prod(grid_t.long(), grid_h.long(), grid_w.long())
    positions = positions.reshape(-1, 3).transpose(0, 1).reshape(3, 1, -1).contiguous()
    return tuple(tables), tuple(positions)


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    tokens = text_tokens(512, config.caption_channels)
    return {
        "hidden_states": draw.latents(config.in_channels, shape.frames, shape.height, shape.width),
        "encoder_hidden_states": draw.latents(tokens, config.caption_channels),
        "timestep": draw.full(500.0, batch, dtype=torch.float32),
        "encoder_attention_mask": draw.padding_mask(tokens, torch.int64),
        "image_rotary_emb": _rotary(config, shape, draw.device),
    }


def _frames_made(frames: int, temporal: int) -> int:
    # As AllegroPipeline counts: no frame stands alone.
    latent = -(-frames // temporal) if frames % 2 == 0 else -(-(frames - 1) // temporal) + 1
    return latent * temporal


FAMILY = Family(
    name="allegro",
    title="Allegro",
    denoiser_class="AllegroTransformer3DModel",
    layout="spatiotemporal",
    sites=r"transformer_blocks\.\d+\.attn1",
    token_grid=grid_of_patches,
    default_shape=_default_shape,
    frames_made=_frames_made,
    synthetic_inputs=_synthetic_inputs,
    notes="rotary positions are passed as tables and indices, a nested tuple",
)
