"""AnimateDiff: a 2-D UNet with motion modules, whose blocks attend over frames twice (attn1 and attn2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.families._base import Family, LatentShape
from f3prune.families.temporal._video_unet import synthetic_inputs, token_grid

if TYPE_CHECKING:
    import torch
    from torch import nn


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    size = config.get("sample_size") or 64
    return LatentShape(min(16, config["motion_max_seq_length"]), size, size)


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    inputs = synthetic_inputs(denoiser, shape, batch, generator)
    # The pipeline repeats each prompt for every frame: `(b f) l d`, frames innermost.
    inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].repeat_interleave(shape.frames, dim=0)
    return inputs


def _pipeline_arguments(pipeline: Any) -> dict[str, Any]:
    """The pipeline's own 16 frames, or as many as the motion modules have positions for."""
    return {"num_frames": min(16, pipeline.unet.config.motion_max_seq_length)}


FAMILY = Family(
    name="animatediff",
    title="AnimateDiff",
    denoiser_class="UNetMotionModel",
    layout="temporal",
    sites=r".+\.motion_modules\.\d+\.transformer_blocks\.\d+\.attn[12]",
    token_grid=token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    latents="sample",
    # A motion module's group norm takes its statistics over all frames.
    only_path_between_frames=False,
    pipeline_arguments=_pipeline_arguments,
    notes="both attentions of a motion block are temporal; its group norm also spans the frames",
)
