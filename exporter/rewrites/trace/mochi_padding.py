"""Mochi's joint attention without indices that depend on the prompt."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import MochiAttnProcessor2_0


@contextlib.contextmanager
def mochi_masks_padding() -> Iterator[None]:
    """Mochi's attention processor masks padded text instead of cutting it out of every sample.

    Why:
        the original takes each sample of the batch by itself, finds its prompt with ``nonzero`` and attends without the
        padding. That fixes the batch size, and leaves a NonZero whose size only the data know, which TensorRT refuses.

    Requires:
        prompts padded on the right, as tokenizers do it and MochiPipeline passes them. (With holes in the mask the
        original moves the text tokens that follow; this does not.)

    Ensures:
        the same outputs, padded positions included: they attend to nothing there and come out as zero.
    """
    original = MochiAttnProcessor2_0.__call__
    MochiAttnProcessor2_0.__call__ = _attend
    try:
        yield
    finally:
        MochiAttnProcessor2_0.__call__ = original


def _attend(
    self: MochiAttnProcessor2_0,
    attn: Any,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    attention_mask: torch.Tensor,
    image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``b n d`` video, ``b l d`` text, ``b l`` mask (nonzero = prompt) -> attended video and text."""

    def project(layer: Any, norm: Any, states: torch.Tensor) -> torch.Tensor:
        """``b n (h d) -> b n h d``."""
        heads = layer(states).unflatten(2, (attn.heads, -1))
        return heads if norm is None else norm(heads)

    query = project(attn.to_q, attn.norm_q, hidden_states)
    key = project(attn.to_k, attn.norm_k, hidden_states)
    value = project(attn.to_v, None, hidden_states)
    text_query = project(attn.add_q_proj, attn.norm_added_q, encoder_hidden_states)
    text_key = project(attn.add_k_proj, attn.norm_added_k, encoder_hidden_states)
    text_value = project(attn.add_v_proj, None, encoder_hidden_states)
    if image_rotary_emb is not None:
        query, key = _rotate(query, *image_rotary_emb), _rotate(key, *image_rotary_emb)

    video_tokens = hidden_states.shape[1]
    prompt = attention_mask.to(torch.bool)
    visible = F.pad(prompt, (video_tokens, 0), value=True)
    output = F.scaled_dot_product_attention(
        torch.cat([query, text_query], dim=1).transpose(1, 2),
        torch.cat([key, text_key], dim=1).transpose(1, 2),
        torch.cat([value, text_value], dim=1).transpose(1, 2),
        attn_mask=visible[:, None, None, :],
    )
    output = output.transpose(1, 2).flatten(2, 3)
    video, text = output[:, :video_tokens], output[:, video_tokens:]
    text = text * prompt[:, :, None].to(text.dtype)

    video = attn.to_out[1](attn.to_out[0](video))
    if hasattr(attn, "to_add_out"):
        text = attn.to_add_out(text)
    return video, text


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate pairs of channels of ``b n h d`` by angles ``n h d/2``, in fp32."""
    even, odd = states[..., 0::2].float(), states[..., 1::2].float()
    rotated = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return rotated.to(states.dtype).flatten(-2)
