"""HunyuanVideo 1.5's text without a look at the data."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import HunyuanVideo15Transformer3DModel
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15AttnProcessor2_0


@contextlib.contextmanager
def hunyuan_video15_masks_padding() -> Iterator[None]:
    """Text keeps its place in the sequence, and a mask of keys hides the padding.

    Why:
        the original asks the data whether there is an image (``if torch.all(image_embeds == 0)``), and sorts the text
        of each sample with boolean indices, padding last. That makes one of two graphs, fixes the batch, and leaves
        NonZero nodes, which TensorRT refuses. Its mask has a row for every query, which grows with the square of the
        sequence.

    Requires:
        nothing of the text's order: text tokens have no positions, and what padding asks is never read.

    Ensures:
        the same video to rounding, with an image and without one, in one graph.
    """
    forward, attend = HunyuanVideo15Transformer3DModel.forward, HunyuanVideo15AttnProcessor2_0.__call__

    @functools.wraps(forward)
    def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _forward(self, *args, **kwargs)

    HunyuanVideo15Transformer3DModel.forward = replaced
    HunyuanVideo15AttnProcessor2_0.__call__ = _attend
    try:
        yield
    finally:
        HunyuanVideo15Transformer3DModel.forward = forward
        HunyuanVideo15AttnProcessor2_0.__call__ = attend


def _forward(
    self: Any,
    hidden_states: torch.Tensor,
    timestep: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    encoder_attention_mask: torch.Tensor,
    timestep_r: torch.Tensor | None = None,
    encoder_hidden_states_2: torch.Tensor | None = None,
    encoder_attention_mask_2: torch.Tensor | None = None,
    image_embeds: torch.Tensor | None = None,
    attention_kwargs: dict[str, Any] | None = None,
    return_dict: bool = True,
) -> Any:
    """The class's forward: latents ``b c f h w`` to the same; prompt, glyphs and image ``b l d``, masks ``b l``."""
    del attention_kwargs  # of adapters, which a denoiser for export has fused
    if encoder_attention_mask_2 is None or image_embeds is None:
        raise ValueError("HunyuanVideo 1.5 needs encoder_attention_mask_2 and image_embeds")
    temb = self.time_embed(timestep, timestep_r=timestep_r)
    kinds = self.cond_type_embed.weight
    prompt = self.context_embedder(encoder_hidden_states, timestep, encoder_attention_mask) + kinds[0]
    glyphs = self.context_embedder_2(encoder_hidden_states_2) + kinds[1]
    image = self.image_embedder(image_embeds) + kinds[2]
    shown = (image_embeds != 0).any().expand(image.shape[:2])
    text = torch.cat([image, glyphs, prompt], dim=1)
    mask = torch.cat([shown, encoder_attention_mask_2.bool(), encoder_attention_mask.bool()], dim=1)

    # As the original does. A prompt without any token is not a number here, which no mask of keys would hide.
    text = text.masked_fill(mask[:, :, None].logical_not(), 0.0)

    rotary = self.rope(hidden_states)
    p, p_t = self.config.patch_size, self.config.patch_size_t
    frames, height, width = hidden_states.shape[2] // p_t, hidden_states.shape[3] // p, hidden_states.shape[4] // p
    video = self.x_embedder(hidden_states)
    for block in self.transformer_blocks:
        video, text = block(video, text, temb, mask, rotary)
    sample = unpatched(self.proj_out(self.norm_out(video, temb)), (frames, height, width), (p_t, p, p))
    return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)


def unpatched(tokens: torch.Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> torch.Tensor:
    """``b (f h w) (c pf ph pw) -> b c (f pf) (h ph) (w pw)``, as HunyuanVideo's denoisers end."""
    patches = tokens.unflatten(2, (-1, *patch)).unflatten(1, grid)
    return patches.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _attend(
    self: Any,
    attn: Any,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    attention_mask: torch.Tensor,
    image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """``b n d`` video, ``b l d`` text, ``b l`` mask (true = text) -> attended video and text."""

    def project(layer: Any, norm: Any, states: torch.Tensor) -> torch.Tensor:
        """``b n (h d) -> b n h d``."""
        heads = layer(states).unflatten(2, (attn.heads, -1))
        return heads if norm is None else norm(heads)

    query = apply_rotary_emb(project(attn.to_q, attn.norm_q, hidden_states), image_rotary_emb, sequence_dim=1)
    key = apply_rotary_emb(project(attn.to_k, attn.norm_k, hidden_states), image_rotary_emb, sequence_dim=1)
    value = project(attn.to_v, None, hidden_states)
    text_query = project(attn.add_q_proj, attn.norm_added_q, encoder_hidden_states)
    text_key = project(attn.add_k_proj, attn.norm_added_k, encoder_hidden_states)
    text_value = project(attn.add_v_proj, None, encoder_hidden_states)

    video_tokens = hidden_states.shape[1]
    visible = F.pad(attention_mask, (video_tokens, 0), value=True)
    output = F.scaled_dot_product_attention(
        torch.cat([query, text_query], dim=1).transpose(1, 2),
        torch.cat([key, text_key], dim=1).transpose(1, 2),
        torch.cat([value, text_value], dim=1).transpose(1, 2),
        attn_mask=visible[:, None, None, :],
    )
    output = output.transpose(1, 2).flatten(2, 3)
    return attn.to_out[0](output[:, :video_tokens]), attn.to_add_out(output[:, video_tokens:])
