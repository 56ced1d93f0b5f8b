"""Wan VACE: Wan with control blocks beside its own; reference images stand as frames before the video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from f3prune.core.errors import InputError
from f3prune.families._base import Family, LatentShape, TokenGrid
from f3prune.families._inputs import Draw, config_of
from f3prune.families.joint.wan_based.wan import synthetic_inputs, token_grid

if TYPE_CHECKING:
    import torch
    from torch import nn

_REFERENCES = "reference_frames"
"""In ``attention_kwargs``, which a pipeline hands on as they are and no attention processor of Wan reads."""


def _token_grid(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    """Wan's, less the reference frames that ``attention_kwargs`` counts.

    Raises:
        InputError: the control latents hold another number of them.
    """
    whole = token_grid(denoiser, arguments)
    references = int((arguments.get("attention_kwargs") or {}).get(_REFERENCES, 0))
    control = arguments.get("control_hidden_states")
    found = None if control is None else _reference_frames(control, config_of(denoiser).in_channels)
    if found is not None and found != references:
        # Taken for frames of the video, references would be pruned away.
        raise InputError(
            f"the call has {found} reference images before its frames, and its attention_kwargs count {references}: "
            f"call the pipeline with attention_kwargs={{'{_REFERENCES}': {found}}}"
        )
    patch = config_of(denoiser).patch_size[0]
    return TokenGrid(whole.frames - references // patch, whole.height, whole.width, references // patch)


def _reference_frames(control: torch.Tensor, channels: int) -> int | None:
    """How many frames of ``b c f h w`` hold an image and else exact zeros; ``None`` while the numbers are not known."""
    import torch

    if type(control) is not torch.Tensor or control.is_meta or torch.compiler.is_compiling():
        return None
    empty = (control[:, channels:] == 0).all(dim=4).all(dim=3).all(dim=1).all(dim=0).tolist()
    return empty.index(False) if False in empty else 0


def _default_shape(config: Mapping[str, Any]) -> LatentShape:
    return LatentShape(21, 60, 104)  # 81 frames of 480 × 832 pixels


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    """Wan's, with one reference image before the video."""
    draw = Draw(denoiser, batch, generator)
    config = draw.config
    references = config.patch_size[0]
    whole = LatentShape(references + shape.frames, shape.height, shape.width)
    control = draw.latents(config.vace_in_channels, whole.frames, whole.height, whole.width)
    control[:, config.in_channels :, :references] = 0.0
    return {
        **synthetic_inputs(denoiser, whole, batch, generator),
        "control_hidden_states": control,
        "control_hidden_states_scale": draw.full(1.0, len(config.vace_layers)),
        "attention_kwargs": reference_arguments(references)["attention_kwargs"],
    }


def reference_arguments(images: int) -> dict[str, Any]:
    """What tells the denoiser of its reference frames, as an argument of the pipeline's call."""
    return {"attention_kwargs": {_REFERENCES: images}} if images else {}


FAMILY = Family(
    name="wan_vace",
    title="Wan VACE",
    denoiser_class="WanVACETransformer3DModel",
    layout="spatiotemporal",
    sites=r"(vace_)?blocks\.\d+\.attn1",
    token_grid=_token_grid,
    default_shape=_default_shape,
    synthetic_inputs=_synthetic_inputs,
    text="before",
    norm_across_heads=True,
    reference_arguments=reference_arguments,
    not_batched=("control_hidden_states_scale",),
    notes="reference images stand before the frames, which all keep seeing them; blocks and vace_blocks are pruned",
)
