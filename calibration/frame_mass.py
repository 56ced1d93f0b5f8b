"""Frame mass: how much attention each frame pays to every other frame, measured without an N×N matrix."""

from __future__ import annotations

import torch

from f3prune.seam import AttentionCall

BLOCK_BYTES = 48 * 2**20
"""Upper bound, in bytes, of the block of probabilities held at once."""


def frame_mass(
    call: AttentionCall,
    rows: int | None = None,
    generator: torch.Generator | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> torch.Tensor:
    """Mean attention probability that queries of frame i put on keys of frame j (DESIGN §2).

    Probabilities are computed for a block of query rows against all keys and summed by key frame at once, so memory
    is ``O(block · n)``; softmax over a whole row makes the result exact, not an online approximation.

    Args:
        call: attention call with ``query``, ``key`` ``b h n d``.
        rows: measure only this many query tokens of every frame, drawn without replacement: unbiased. ``None``: all.
        generator: CPU generator for ``rows``.
        block_bytes: size of a block in bytes.

    Returns:
        ``h f (f+1)`` float32 on the query's device, averaged over batch and query tokens. The last column is the mass
        on text keys; every row sums to 1.
    """
    if call.site.layout == "sparse-causal":
        return _sparse_causal_mass(call, rows, generator, block_bytes)
    batch, heads, length, _ = call.key.shape
    frames, per_frame = call.frames, call.tokens_per_frame
    positions = torch.arange(frames * per_frame).view(frames, per_frame)
    if rows is not None and rows < per_frame:
        order = torch.stack([torch.randperm(per_frame, generator=generator) for _ in range(frames)])
        positions = positions.gather(1, order[:, :rows])
    per_query_frame = positions.shape[1]
    index = (positions.flatten() + (call.text_before if call.text_queries else 0)).to(call.query.device)

    row_bytes = heads * length * 4
    block = max(1, min(index.numel(), block_bytes // row_bytes))
    batch_block = max(1, block_bytes // (row_bytes * block)) if block == index.numel() else 1

    mass = torch.zeros(heads, index.numel(), frames + 1, device=call.query.device)
    for b in range(0, batch, batch_block):
        key = call.key[b : b + batch_block].float().transpose(-1, -2)
        for r in range(0, index.numel(), block):
            chosen = index[r : r + block]
            scores = call.query[b : b + batch_block].index_select(2, chosen).float() @ key
            scores *= call.scale
            _apply_mask(scores, call.mask, b, batch_block, chosen)
            probabilities = torch.softmax(scores, dim=-1, out=scores)
            video = probabilities[..., call.video].unflatten(-1, (frames, per_frame)).sum(-1)
            mass[:, r : r + block, :frames] += video.sum(0)
            if length > call.video_tokens:
                text = probabilities[..., : call.text_before].sum(-1) + probabilities[..., call.video.stop :].sum(-1)
                mass[:, r : r + block, frames] += text.sum(0)
    return mass.unflatten(1, (frames, per_query_frame)).mean(2) / batch


def _sparse_causal_mass(
    call: AttentionCall, rows: int | None, generator: torch.Generator | None, block_bytes: int
) -> torch.Tensor:
    """The same where the queries of frame i, one entry of the batch, meet the keys of frames 0 and i-1 alone."""
    images, heads, per_frame, _ = call.query.shape
    frames, count = call.frames, min(rows or per_frame, per_frame)
    block = max(1, min(count, block_bytes // (heads * per_frame * 8)))
    mass = torch.zeros(heads, frames, frames + 1, device=call.query.device)
    for image in range(images):
        frame = image % frames
        chosen = (
            torch.arange(per_frame) if count == per_frame else torch.randperm(per_frame, generator=generator)[:count]
        )
        key = call.key[image].float().transpose(-1, -2)
        for part in chosen.to(call.query.device).split(block):
            scores = call.query[image].index_select(1, part).float() @ key * call.scale
            first, former = torch.softmax(scores, dim=-1).unflatten(-1, (2, per_frame)).sum((1, 3)).unbind(-1)
            mass[:, frame, 0] += first
            mass[:, frame, max(0, frame - 1)] += former
    return mass / (images // frames * count)


def _apply_mask(scores: torch.Tensor, mask: torch.Tensor | None, start: int, size: int, rows: torch.Tensor) -> None:
    """Add the call's mask to a block of scores ``b h r n`` in place."""
    if mask is None:
        return
    while mask.ndim < scores.ndim:
        mask = mask.unsqueeze(0)
    if mask.shape[0] > 1:
        mask = mask[start : start + size]
    if mask.shape[2] > 1:
        mask = mask.index_select(2, rows)
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, -torch.inf)
    else:
        scores += mask.float()
