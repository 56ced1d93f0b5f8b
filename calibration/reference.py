"""What pruning means, said with masks on dense attention: the slow reference that baking is tested against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from calibration.masks import Masks, SiteMask
from f3prune.families import family_of
from f3prune.seam import AttentionCall, Seam


@contextmanager
def masked_reference(denoiser: nn.Module, masks: Masks, stage: int = 0) -> Iterator[nn.Module]:
    """Let a dense denoiser compute what the baked one would, for as long as the context lasts.

    Every pruned head attends through a boolean mask ``1 h n n``; dropped heads are multiplied by zero, and the output
    of a site with no head left, bias included, is replaced by zeros.
    """
    family = family_of(denoiser)
    wanted = {name: m for name, m in masks.stages[stage].sites.items() if not m.untouched}
    dropped = {n for n, m in wanted.items() if masks.mode == "drop" and len(m.pruned_heads) == m.heads}
    with ExitStack() as stack:
        stack.enter_context(
            Seam(denoiser, family, {n: _MaskedSite(m, masks.mode) for n, m in wanted.items() if n not in dropped})
        )
        for name in dropped:
            if family.cached:
                stack.enter_context(_spatial_takes_all(denoiser.get_submodule(name.rpartition(".")[0])))
                continue
            handle = denoiser.get_submodule(name).register_forward_hook(_zeros)
            stack.callback(handle.remove)
        yield denoiser


@contextmanager
def _spatial_takes_all(layer: nn.Module) -> Iterator[None]:
    """CogVideo's mixing gate at 1: the temporal channel's share goes to the spatial one."""
    gate = layer.get_parameter("gate")
    layer.gate = nn.Parameter(torch.full_like(gate, torch.inf), requires_grad=False)
    try:
        yield
    finally:
        layer.gate = gate


class _MaskedSite:
    def __init__(self, mask: SiteMask, mode: str) -> None:
        self.mask = mask
        self.mode = mode

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        heads = call.query.shape[1]
        pruned = torch.tensor([h in self.mask.pruned_heads for h in range(heads)], device=call.query.device)
        if self.mode == "drop":
            return call.dense() * (~pruned).to(call.query.dtype)[None, :, None, None]
        allowed = self._allowed(call)
        if call.mask is not None:
            if call.mask.dtype != torch.bool:
                blocked = torch.zeros(allowed.shape, dtype=call.mask.dtype, device=allowed.device)
                return self._attend(call, call.mask + blocked.masked_fill(~allowed, -torch.inf))
            allowed = allowed & call.mask
        return self._attend(call, allowed)

    def _attend(self, call: AttentionCall, mask: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(call.query, call.key, call.value, attn_mask=mask, scale=call.scale)

    def _allowed(self, call: AttentionCall) -> torch.Tensor:
        """Who may attend to whom, ``1 h n n`` boolean."""
        length, device = call.key.shape[2], call.query.device
        # Frame of every token, text being a frame of its own numbered F.
        frame = torch.full((length,), call.frames, device=device)
        frame[call.video] = torch.arange(call.frames, device=device).repeat_interleave(call.tokens_per_frame)
        same_or_text = (frame[:, None] == frame[None, :]) | (frame[None, :] == call.frames)
        asking = slice(None) if call.text_queries else call.video
        everything = torch.ones(length, length, dtype=torch.bool, device=device)
        if self.mask.kept_pairs is not None:
            pairs = torch.zeros(call.frames + 1, call.frames + 1, dtype=torch.bool, device=device)
            for i, keys in enumerate(self.mask.kept_pairs):
                pairs[i, list(keys)] = True
            pairs[:, call.frames] = True
            pairs[call.frames, :] = True
            return pairs[frame][:, frame][None, None, asking].expand(1, call.query.shape[1], -1, -1)
        heads = [h in self.mask.pruned_heads for h in range(call.query.shape[1])]
        return torch.stack([same_or_text if pruned else everything for pruned in heads])[None, :, asking]


def _zeros(module: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(None if o is None else torch.zeros_like(o) for o in output)
    return torch.zeros_like(output)
