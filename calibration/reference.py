"""What pruning means, computed densely: the slow reference that baking is tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from f3prune.calibration.attention_hook import AttentionCall, AttentionHook, Handler
from f3prune.calibration.bake.attention import take_heads
from f3prune.calibration.bake.surgery import put
from f3prune.calibration.masks import Masks, SiteMask
from f3prune.calibration.replacements._masks import attend_where, frames_of
from f3prune.families import Site, TokenGrid, family_of


@contextmanager
def masked_reference(
    denoiser: nn.Module,
    masks: Masks,
    handler: Callable[[SiteMask], Handler] | None = None,
    layers: Callable[[Site], Iterable[tuple[str, nn.Linear]]] = lambda site: (),
) -> Iterator[nn.Module]:
    """Let a dense denoiser compute what the baked one would, for as long as the context lasts.

    Every pruned head computes its replacement's ``reference``, with whole masks ``n n``.

    Args:
        denoiser: the dense denoiser.
        masks: what is pruned; their first stage counts.
        handler: what attends at a site instead; the default holds a whole mask in memory and is there to test with.
        layers: output projections of a site that take the place of the denoiser's, by name (a refit's).
    """
    handler = handler or _ReferenceSite
    family = family_of(denoiser)
    sites = {site.name: site for site in family.find_sites(denoiser, "all")}
    handlers = {}
    with ExitStack() as stack:
        for name, mask in masks.stages[0].sites.items():
            if mask.untouched:
                continue
            for layer_name, layer in layers(sites[name]):
                stack.callback(put, denoiser, layer_name, put(denoiser, layer_name, layer))
            if len(mask.pruned_heads) == mask.heads:
                gone = mask.stand_in.whole_site(denoiser, family, sites[name])
                if gone is not None:
                    stack.enter_context(gone)
                    continue
            if mask.layout == "sparse-causal":
                hook = _ReferenceFrames(mask, sites[name])
                stack.callback(denoiser.get_submodule(name).register_forward_hook(hook).remove)
            else:
                handlers[name] = handler(mask)
        stack.enter_context(AttentionHook(denoiser, family, handlers))
        yield denoiser


class _ReferenceSite:
    def __init__(self, mask: SiteMask) -> None:
        self.mask = mask

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        if self.mask.kept_pairs is not None:
            return self._pairs(call, self.mask.kept_pairs)
        return replaced_output(call, self.mask, self.mask.stand_in.reference)

    def _pairs(self, call: AttentionCall, kept: tuple[tuple[int, ...], ...]) -> torch.Tensor:
        pairs = torch.zeros(call.frames + 1, call.frames + 1, dtype=torch.bool, device=call.query.device)
        for i, keys in enumerate(kept):
            pairs[i, list(keys)] = True
        pairs[:, call.frames] = True
        pairs[call.frames, :] = True
        return attend_where(call, pairs[frames_of(call)])


def replaced_output(
    call: AttentionCall, mask: SiteMask, attend: Callable[[AttentionCall], torch.Tensor]
) -> torch.Tensor:
    """Dense attention, but ``attend`` at the pruned heads: ``b h n d``."""
    heads = list(mask.pruned_heads)
    if len(heads) == mask.heads:
        return attend(call)
    output = call.dense().clone()
    output[:, heads] = attend(take_heads(call, heads))
    return output


class _ReferenceFrames:
    """Forward hook of a sparse-causal site: the same over the tokens of all frames at once."""

    def __init__(self, mask: SiteMask, site: Site) -> None:
        self.mask = mask
        self.site = site

    def __call__(self, module: Any, args: tuple[torch.Tensor, int], output: torch.Tensor) -> torch.Tensor:
        hidden_states, frames = args
        tokens = hidden_states.unflatten(0, (-1, frames)).flatten(1, 2)
        query, key, value = (
            layer(tokens).unflatten(-1, (module.heads, -1)).transpose(1, 2)
            for layer in (module.to_q, module.to_k, module.to_v)
        )
        grid = TokenGrid(frames, 1, hidden_states.shape[1])
        call = AttentionCall(self.site, query, key, value, None, query.shape[-1] ** -0.5, grid, 0, 0)
        asks, answers = frames_of(call)
        seen = (answers == 0) | (answers == asks - 1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        heads = list(self.mask.pruned_heads)
        attended[:, heads] = self.mask.stand_in.reference(take_heads(call, heads))
        result: torch.Tensor = module.to_out[0](attended.transpose(1, 2).flatten(2))
        return result.unflatten(1, (frames, -1)).flatten(0, 1)
