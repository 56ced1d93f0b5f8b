"""ConsisID: CogVideoX that keeps a face, which enters by cross-attention between its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from f3prune.core.errors import InputError
from f3prune.families._base import Family, LatentShape
from f3prune.families._inputs import Draw, text_tokens
from f3prune.families.joint import cogvideox

if TYPE_CHECKING:
    import torch
    from torch import nn


def _synthetic_inputs(
    denoiser: nn.Module, shape: LatentShape, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    """CogVideoX's, with one face for the whole batch."""
    draw = Draw(denoiser, batch, generator)
    config = draw.config
    inputs = cogvideox.synthetic_inputs(denoiser, shape, batch, generator)
    if config.is_train_face:
        inputs["id_cond"] = draw.normal(1, config.LFE_id_dim)
        patches = text_tokens(577, config.LFE_vit_dim)
        inputs["id_vit_hidden"] = [draw.normal(1, patches, config.LFE_vit_dim) for _ in range(config.LFE_num_scale)]
    return inputs


def _pipeline_arguments(pipeline: Any) -> dict[str, Any]:
    """CogVideoX's.

    Raises:
        InputError: the model wants the embeddings of a face, which no prompt has.
    """
    if pipeline.transformer.config.is_train_face:
        raise InputError(
            "ConsisIDPipeline asks for id_cond and id_vit_hidden, the embeddings of a face, which prompts do not "
            "have: give the directory of its transformer, or calibrate in Python with a function that passes them"
        )
    return cogvideox.pipeline_arguments(pipeline)


FAMILY = Family(
    name="consisid",
    title="ConsisID",
    denoiser_class="ConsisIDTransformer3DModel",
    layout="spatiotemporal",
    sites=cogvideox.FAMILY.sites,
    token_grid=cogvideox.token_grid,
    default_shape=cogvideox.default_shape,
    synthetic_inputs=_synthetic_inputs,
    text="before",
    frame_axis=1,
    returns_text=True,
    frames_made=cogvideox.frames_made,
    pipeline_arguments=_pipeline_arguments,
    not_batched=("id_cond",),
    notes="as CogVideoX; the face enters by cross-attention, which stays as it is",
)
