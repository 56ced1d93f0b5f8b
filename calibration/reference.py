"""What pruning means, said with masks on dense attention: the slow reference that baking is tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from f3prune.calibration.attention_hook import AttentionCall, AttentionHook, Handler
from f3prune.calibration.masks import Masks, Mode, SiteMask
from f3prune.families import family_of


@contextmanager
def masked_reference(
    denoiser: nn.Module, masks: Masks, stage: int = 0, handler: Callable[[SiteMask, Mode], Handler] | None = None
) -> Iterator[nn.Module]:
    """Let a dense denoiser compute what the baked one would, for as long as the context lasts.

    Every pruned head attends through a boolean mask ``1 h n n``; dropped heads are multiplied by zero, and the output
    of a site with no head left, bias included, is replaced by zeros.

    Args:
        denoiser: the dense denoiser.
        masks: what is pruned.
        stage: of the masks.
        handler: what attends at a site instead; the default holds a whole mask in memory and is there to test with.
    """
    handler = handler or _MaskedSite
    family = family_of(denoiser)
    wanted = {name: m for name, m in masks.stages[stage].sites.items() if not m.untouched}
    dropped = {n for n, m in wanted.items() if masks.mode == "drop" and len(m.pruned_heads) == m.heads}
    with ExitStack() as stack:
        stack.enter_context(
            AttentionHook(
                denoiser,
                family,
                {
                    name: handler(mask, masks.mode)
                    for name, mask in wanted.items()
                    if name not in dropped and mask.layout != "sparse-causal"
                },
            )
        )
        for name, mask in wanted.items():
            if mask.layout == "sparse-causal" and name not in dropped:
                handle = denoiser.get_submodule(name).register_forward_hook(_MaskedFrames(mask, masks.mode))
                stack.callback(handle.remove)
        for name in dropped:
            if family.autoregressive:
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


class _MaskedFrames:
    """Forward hook of a sparse-causal site: the same by a mask over the tokens of all frames at once."""

    def __init__(self, mask: SiteMask, mode: str) -> None:
        self.mask = mask
        self.mode = mode

    def __call__(self, module: Any, args: tuple[torch.Tensor, int], output: torch.Tensor) -> torch.Tensor:
        hidden_states, frames = args
        tokens = hidden_states.unflatten(0, (-1, frames)).flatten(1, 2)
        query, key, value = (
            layer(tokens).unflatten(-1, (module.heads, -1)).transpose(1, 2)
            for layer in (module.to_q, module.to_k, module.to_v)
        )
        frame = torch.arange(frames, device=tokens.device).repeat_interleave(hidden_states.shape[1])
        asks, answers = frame[:, None], frame[None, :]
        seen = (answers == 0) | (answers == asks - 1)
        pruned = [head in self.mask.pruned_heads for head in range(module.heads)]
        allowed = torch.stack([asks == answers if gone and self.mode == "local" else seen for gone in pruned])
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed[None])
        if self.mode == "drop":
            attended = attended * ~torch.tensor(pruned, device=tokens.device)[None, :, None, None]
        result: torch.Tensor = module.to_out[0](attended.transpose(1, 2).flatten(2))
        return result.unflatten(1, (frames, -1)).flatten(0, 1)


def _zeros(module: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(None if o is None else torch.zeros_like(o) for o in output)
    return torch.zeros_like(output)
