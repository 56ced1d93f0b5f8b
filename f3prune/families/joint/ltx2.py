"""LTX-2: a video and an audio stream that attend to each other; the video's self-attention is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.core.errors import InputError
from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, text_tokens

if TYPE_CHECKING:
    import torch
    from torch import nn

_FPS = 24.0


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    sizes = [arguments.get(name) for name in ("num_frames", "height", "width")]
    if None in sizes:
        raise InputError("this call of LTX-2 gives no num_frames, height and width: pass them beside video_coords")
    grid = TokenGrid(*(int(size) for size in sizes if size is not None))
    tokens = int(arguments["hidden_states"].shape[1])
    if tokens != grid.video_tokens:
        raise InputError(
            f"this call has {tokens} video tokens, expected {grid.frames} frames x {grid.tokens_per_frame}: appended "
            f"keyframes and references are no whole frames, so give at most an image, which is the first frame"
        )
    return grid


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(16, 16, 24)  # 121 frames of 512 × 768 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    import torch

    draw = Draw(denoiser, batch, generator)
    config = draw.config
    rope, audio_rope = (getattr(denoiser, name) for name in ("rope", "audio_rope"))
    # The audio is as long as the video: one latent frame of it for the first video frame, the same pace afterwards.
    seconds = ((shape.frames - 1) * config.vae_scale_factors[0] + 1) / _FPS
    heard = max(2, round(seconds * config.audio_sampling_rate / config.audio_hop_length / config.audio_scale_factor))
    width, audio_width = (
        (config.caption_channels, config.caption_channels)
        if config.use_prompt_embeddings
        else (config.cross_attention_dim, config.audio_cross_attention_dim)
    )
    tokens = text_tokens(1024, min(width, audio_width))
    padding = draw.padding_mask(tokens, torch.int64)
    coordinates = rope.prepare_video_coords(batch, shape.frames, shape.height, shape.width, draw.device, fps=_FPS)
    return {
        "hidden_states": draw.latents(shape.frames * shape.height * shape.width, config.in_channels),
        "audio_hidden_states": draw.latents(heard, config.audio_in_channels),
        "encoder_hidden_states": draw.latents(tokens, width),
        "audio_encoder_hidden_states": draw.latents(tokens, audio_width),
        "timestep": draw.full(500.0, batch, dtype=torch.float32),
        "sigma": draw.full(500.0, batch, dtype=torch.float32),
        "encoder_attention_mask": padding,
        "audio_encoder_attention_mask": padding.clone(),
        "num_frames": shape.frames,
        "height": shape.height,
        "width": shape.width,
        "fps": _FPS,
        "audio_num_frames": heard,
        "video_coords": coordinates,
        "audio_coords": audio_rope.prepare_audio_coords(batch, heard, draw.device).clone(),
        "use_cross_timestep": bool(config.cross_attn_mod),
    }


def _pipeline_arguments(pipeline: Any) -> dict[str, Any]:
    # Calls without attention in some blocks, or between the streams, are other graphs: guidance is by the prompt alone.
    return {
        "stg_scale": 0.0,
        "modality_scale": 1.0,
        "audio_stg_scale": 0.0,
        "audio_modality_scale": 1.0,
        "spatio_temporal_guidance_blocks": None,
    }


FAMILY = Family(
    name="ltx2",
    title="LTX-2",
    denoiser_class="LTX2VideoTransformer3DModel",
    layout="spatiotemporal",
    sites=r"transformer_blocks\.\d+\.attn1",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    frame_axis=1,
    outputs=("sample", "audio_sample"),
    norm_across_heads=True,
    qk_heads_interchangeable=False,
    only_path_between_frames=False,
    pipeline_arguments=_pipeline_arguments,
    notes="video and audio, both denoised; frames also meet in the audio; guidance by the prompt alone",
)
