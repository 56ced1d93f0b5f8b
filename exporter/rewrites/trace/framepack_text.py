"""Framepack's text without a look at the data."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import HunyuanVideoFramepackTransformer3DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from f3prune.exporter.rewrites.trace.hunyuan_video15_text import unpatched


@contextlib.contextmanager
def framepack_masks_padding() -> Iterator[None]:
    """A mask of keys hides the padding of the prompt, in a batch of one, too.

    Why:
        the original cuts the padding off where there is one sample, and otherwise marks each sample's tokens in a
        loop. Both ask the data for a length, and fix the batch.

    Requires:
        prompts padded on the right; history and image given, as the pipeline gives them.

    Ensures:
        the same video to rounding.
    """
    forward = HunyuanVideoFramepackTransformer3DModel.forward

    @functools.wraps(forward)
    def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _forward(self, *args, **kwargs)

    HunyuanVideoFramepackTransformer3DModel.forward = replaced
    try:
        yield
    finally:
        HunyuanVideoFramepackTransformer3DModel.forward = forward


def _forward(
    self: Any,
    hidden_states: torch.Tensor,
    timestep: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    encoder_attention_mask: torch.Tensor,
    pooled_projections: torch.Tensor,
    image_embeds: torch.Tensor,
    indices_latents: torch.Tensor,
    guidance: torch.Tensor | None = None,
    latents_clean: torch.Tensor | None = None,
    indices_latents_clean: torch.Tensor | None = None,
    latents_history_2x: torch.Tensor | None = None,
    indices_latents_history_2x: torch.Tensor | None = None,
    latents_history_4x: torch.Tensor | None = None,
    indices_latents_history_4x: torch.Tensor | None = None,
    attention_kwargs: dict[str, Any] | None = None,
    return_dict: bool = True,
) -> Any:
    """The class's forward: latents ``b c f h w`` to the same; prompt and image ``b l d``, indices ``f``."""
    del attention_kwargs  # of adapters, which a denoiser for export has fused
    frames, height, width = hidden_states.shape[2:]
    p, p_t = self.config.patch_size, self.config.patch_size_t
    grid = (frames // p_t, height // p, width // p)

    def rotary(indices: torch.Tensor | None) -> Any:
        return self.rope(frame_indices=indices, height=height, width=width, device=hidden_states.device)

    video = self.x_embedder(hidden_states)
    window = video.shape[1]
    clean, near, far = self.clean_x_embedder(latents_clean, latents_history_2x, latents_history_4x)
    video, positions = self._pack_history_states(
        video,
        clean,
        near,
        far,
        rotary(indices_latents),
        rotary(indices_latents_clean),
        rotary(indices_latents_history_2x),
        rotary(indices_latents_history_4x),
        *grid[1:],
    )
    temb, _ = self.time_text_embed(timestep, pooled_projections, guidance)
    prompt = self.context_embedder(encoder_hidden_states, timestep, encoder_attention_mask)
    # The original cuts padding off. That of a prompt without any token is not a number, which no mask of keys hides.
    prompt = prompt.masked_fill(encoder_attention_mask[:, :, None] == 0, 0.0)
    image = self.image_projection(image_embeds)
    text = torch.cat([image, prompt], dim=1)
    visible = F.pad(encoder_attention_mask.bool(), (video.shape[1] + image.shape[1], 0), value=True)[:, None, None, :]
    for block in (*self.transformer_blocks, *self.single_transformer_blocks):
        video, text = block(video, text, temb, visible, positions)
    sample = unpatched(self.proj_out(self.norm_out(video[:, -window:], temb)), grid, (p_t, p, p))
    return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)
