"""CogVideoX 1.0 (sinusoidal, learned or rotary positions) and 1.5 (rotary, two latent frames per token frame)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, config_of

if TYPE_CHECKING:
    import torch
    from torch import nn


def token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    config = config_of(denoiser)
    _, frames, _, height, width = arguments["hidden_states"].shape
    p = config.patch_size
    return TokenGrid(int(frames) // (getattr(config, "patch_size_t", None) or 1), int(height) // p, int(width) // p)


def default_shape(config: Mapping[str, Any]) -> LatentShape:
    frames = (config["sample_frames"] - 1) // config["temporal_compression_ratio"] + 1
    p_t = config.get("patch_size_t") or 1
    # The pipeline of 1.5 adds latent frames until they fill whole patches.
    return LatentShape(-(-frames // p_t) * p_t, config["sample_height"], config["sample_width"])


def _rotary(config: Any, shape: LatentShape, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines ``(f h w) d``, as ``CogVideoXPipeline`` prepares them."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    p, p_t = config.patch_size, getattr(config, "patch_size_t", None)
    grid = (shape.height // p, shape.width // p)
    base = (config.sample_height // p, config.sample_width // p)
    options: dict[str, Any] = {"embed_dim": config.attention_head_dim, "grid_size": grid, "device": device}
    if p_t is None:
        options |= {"crops_coords": get_resize_crop_region_for_grid(grid, base[1], base[0])}
        options |= {"temporal_size": shape.frames}
    else:
        options |= {"crops_coords": None, "temporal_size": (shape.frames + p_t - 1) // p_t}
        options |= {"grid_type": "slice", "max_size": base}
    cosines, sines = get_3d_rotary_pos_embed(**options)
    return cosines, sines


def synthetic_inputs(denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    inputs: dict[str, Any] = {
        "hidden_states": draw.latents(shape.frames, config.in_channels, shape.height, shape.width),
        "encoder_hidden_states": draw.latents(config.max_text_seq_length, config.text_embed_dim),
        "timestep": draw.full(500, batch, dtype=torch.int64),
    }
    if getattr(config, "ofs_embed_dim", None):
        inputs["ofs"] = draw.full(2.0, 1)
    if config.use_rotary_positional_embeddings:
        inputs["image_rotary_emb"] = _rotary(config, shape, draw.device)
    return inputs


def pipeline_arguments(pipeline: Any) -> dict[str, Any]:
    # The prompt must fill the positions of the sinusoidal embedding exactly; the pipeline's own default is 226.
    return {"max_sequence_length": pipeline.transformer.config.max_text_seq_length}


def frames_made(frames: int, temporal: int) -> int:
    # The decoder takes latent frames in twos, an odd number with three at first; only then the first is one frame.
    latent = (frames - 1) // temporal + 1
    return latent * temporal - (temporal - 1 if latent % 2 else 0)


FAMILY = Family(
    name="cogvideox",
    title="CogVideoX 1.0 and 1.5",
    denoiser_class="CogVideoXTransformer3DModel",
    layout="spatiotemporal",
    sites=r"transformer_blocks\.\d+\.attn1",
    token_grid=token_grid,
    default_shape=default_shape,
    synthetic_inputs=synthetic_inputs,
    text="before",
    frame_axis=1,
    returns_text=True,
    frames_made=frames_made,
    pipeline_arguments=pipeline_arguments,
    notes="text first, then frames, in one sequence; 1.5 puts two latent frames into one token frame",
)
