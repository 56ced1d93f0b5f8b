"""Who may attend to whom, for the dense references."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from f3prune.calibration.attention_hook import AttentionCall


def frames_of(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor]:
    """Frame of every query ``q 1`` and of every key ``1 n``, int64; text is a frame of its own, numbered F."""
    length, device = call.key.shape[2], call.query.device
    frame = torch.full((length,), call.frames, device=device)
    frame[call.video] = torch.arange(call.frames, device=device).repeat_interleave(call.tokens_per_frame)
    asking = frame if call.text_queries else frame[call.video]
    return asking[:, None], frame[None, :]


def attend_where(call: AttentionCall, allowed: torch.Tensor) -> torch.Tensor:
    """Dense attention through a mask ``q n``, boolean, beside the call's own: ``b h n d``."""
    mask = call.mask
    if mask is None:
        mask = allowed
    elif mask.dtype == torch.bool:
        mask = allowed & mask
    else:
        mask = mask + torch.zeros(allowed.shape, dtype=mask.dtype, device=mask.device).masked_fill(~allowed, -torch.inf)
    return F.scaled_dot_product_attention(call.query, call.key, call.value, attn_mask=mask, scale=call.scale)
