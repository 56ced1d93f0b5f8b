"""Frame mass: how much attention each frame pays to every other frame, measured without an N×N matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from f3prune.calibration.attention_hook import AttentionCall
from f3prune.calibration.fused_mass import attend, attend_short, key_spans, part_of_mask, shares_of

BLOCK_BYTES = 16 * 2**20
"""Upper bound, in bytes, of the block of probabilities held at once; larger ones are no faster."""


def attention_with_mass(
    call: AttentionCall, rows: int | None = None, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention's output, and the mass that its queries of frame i put on keys of frame j.

    Exact measurement takes both from the same pass over the scores, see ``fused_mass``. With ``rows`` the output is
    the dense call's, bit for bit, and the mass comes from the sampled queries alone.

    Args:
        call: attention call with ``query``, ``key``, ``value`` ``b h n d``.
        rows: measure only this many query tokens of every frame, drawn without replacement: unbiased. ``None``: all.
        generator: CPU generator for ``rows``.

    Returns:
        ``b h n d`` as ``call.dense()`` gives it, to rounding, and ``h f (f+1)`` float32 on the query's device,
        averaged over batch and query tokens. The last column is the mass on text keys; every row sums to 1.
    """
    per_frame = call.query.shape[2] if call.site.layout == "sparse-causal" else call.tokens_per_frame
    if rows is not None and rows < per_frame:
        return call.dense(), frame_mass(call, rows, generator)
    if call.site.layout == "temporal":
        return attend_short(call)
    if call.site.layout == "sparse-causal":
        output, share = attend(call, [slice(0, per_frame), slice(per_frame, 2 * per_frame)], slice(None), per_frame)
        return output, _of_first_and_former(share[:, :, 0], call.frames)
    asking = call.video if call.text_queries else slice(None)
    output, share = attend(call, key_spans(call), asking, per_frame)
    return output, _text_last(share.mean(0), call.frames)


def frame_mass(
    call: AttentionCall,
    rows: int | None = None,
    generator: torch.Generator | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> torch.Tensor:
    """The mass alone, for some or all query tokens: of all by blocks of probabilities, of some by indicators.

    Probabilities are computed for a block of query rows against all keys and summed by key frame at once, so memory
    is ``O(block · n)``; softmax over a whole row makes the result exact, not an online approximation.

    Args:
        call, rows, generator: see ``attention_with_mass``.
        block_bytes: size of a block in bytes.

    Returns:
        ``h f (f+1)`` float32, see ``attention_with_mass``.
    """
    if call.site.layout == "sparse-causal":
        return _sparse_causal_mass(call, rows, generator, block_bytes)
    if rows is not None and rows < call.tokens_per_frame:
        return _sampled_mass(call, rows, generator)
    batch, heads, length, _ = call.key.shape
    frames, per_frame = call.frames, call.tokens_per_frame
    first = call.text_before if call.text_queries else 0
    index = torch.arange(first, first + frames * per_frame, device=call.query.device)

    mass = torch.zeros(heads, index.numel(), frames + 1, device=call.query.device)
    for b, h, r in _blocks(batch, heads, index.numel(), length, block_bytes):
        chosen = index[r]
        scores = call.query[b, h].index_select(2, chosen).float() @ call.key[b, h].float().transpose(-1, -2)
        scores *= call.scale
        _apply_mask(scores, call.mask, b, h, chosen)
        probabilities = torch.softmax(scores, dim=-1, out=scores)
        video = probabilities[..., call.video].unflatten(-1, (frames, per_frame)).sum(-1)
        mass[h, r, :frames] += video.sum(0)
        if length > call.video_tokens:
            text = probabilities[..., : call.text_before].sum(-1) + probabilities[..., call.video.stop :].sum(-1)
            mass[h, r, frames] += text.sum(0)
    return mass.unflatten(1, (frames, per_frame)).mean(2) / batch


def _sampled_mass(call: AttentionCall, rows: int, generator: torch.Generator | None) -> torch.Tensor:
    """The same from ``rows`` query tokens of every frame."""
    frames, per_frame = call.frames, call.tokens_per_frame
    # The places of the largest of random numbers are a draw without replacement, of all frames in one operation.
    drawn = torch.rand(frames, per_frame, generator=generator).topk(rows, dim=1).indices
    first = call.text_before if call.text_queries else 0
    index = (drawn + torch.arange(first, first + frames * per_frame, per_frame)[:, None]).flatten()
    index = index.to(call.query.device)
    mask = call.mask
    if mask is not None:
        mask = mask.index_select(-2, index) if mask.ndim > 1 and mask.shape[-2] > 1 else mask
        mask = mask if mask.dtype == torch.bool else mask.float()
    query = call.query.index_select(2, index).float()
    share = shares_of(query, call.key.float(), mask, call.scale, key_spans(call))
    return _text_last(share.unflatten(2, (frames, rows)).mean((0, 3)), frames)


def _blocks(batch: int, heads: int, rows: int, length: int, block_bytes: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut ``b h r n`` float32 into blocks: rows are kept together first, as products of tall matrices are faster."""
    room = max(1, block_bytes // (length * 4))
    by_rows = min(rows, room)
    by_heads = min(heads, max(1, room // by_rows)) if by_rows == rows else 1
    by_batch = min(batch, max(1, room // (by_rows * by_heads))) if by_heads == heads else 1
    for b in range(0, batch, by_batch):
        for h in range(0, heads, by_heads):
            for r in range(0, rows, by_rows):
                yield slice(b, b + by_batch), slice(h, h + by_heads), slice(r, r + by_rows)


def _sparse_causal_mass(
    call: AttentionCall, rows: int | None, generator: torch.Generator | None, block_bytes: int
) -> torch.Tensor:
    """The same where the queries of frame i, one entry of the batch, meet the keys of frames 0 and i-1 alone."""
    images, heads, per_frame, _ = call.query.shape
    count = min(rows or per_frame, per_frame)
    block = max(1, min(count, block_bytes // (heads * per_frame * 8)))
    share = torch.zeros(images, heads, 2, device=call.query.device)
    for image in range(images):
        chosen = (
            torch.arange(per_frame) if count == per_frame else torch.randperm(per_frame, generator=generator)[:count]
        )
        key = call.key[image].float().transpose(-1, -2)
        for part in chosen.to(call.query.device).split(block):
            scores = call.query[image].index_select(1, part).float() @ key * call.scale
            share[image] += torch.softmax(scores, dim=-1).unflatten(-1, (2, per_frame)).sum((1, 3))
    return _of_first_and_former(share / count, call.frames)


def _of_first_and_former(share: torch.Tensor, frames: int) -> torch.Tensor:
    """Mass from each image's share on frames 0 and i-1, frames innermost in the batch: ``(b f) h 2 -> h f (f+1)``."""
    clips = share.unflatten(0, (-1, frames)).mean(0)
    mass = torch.zeros(share.shape[1], frames, frames + 1, device=share.device)
    for i in range(frames):
        mass[:, i, 0] += clips[i, :, 0]
        mass[:, i, max(0, i - 1)] += clips[i, :, 1]
    return mass


def _text_last(share: torch.Tensor, frames: int) -> torch.Tensor:
    """Put the shares of all text in one last column: ``h f s -> h f (f+1)``."""
    return torch.cat([share[..., :frames], share[..., frames:].sum(-1, keepdim=True)], dim=-1)


def _apply_mask(scores: torch.Tensor, mask: torch.Tensor | None, b: slice, h: slice, rows: torch.Tensor) -> None:
    """Add the call's mask to a block of scores ``b h r n`` in place."""
    mask = part_of_mask(mask, b, h)
    if mask is None:
        return
    if mask.shape[2] > 1:
        mask = mask.index_select(2, rows)
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, -torch.inf)
    else:
        scores += mask.float()
