"""Attention to near frames, whole, and to far ones, averaged over patches."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F

from f3prune.calibration.attention_hook import AttentionCall
from f3prune.calibration.bake.attention import frames_of, key_mask_of, text_of, text_output, with_text


def attend_near(call: AttentionCall, window: int, pool: int | None = None) -> torch.Tensor:
    """Video queries attend to near frames and text, and to patches of far frames.

    Text queries attend to everything; where far frames are seen in patches, they see every frame in patches. Keys of
    every query frame are laid side by side and frames folded into the batch, so that a backend sees ordinary attention
    over fewer keys. A patch's score gets the log of its number of tokens, as a mask that is the same for every query,
    which fused kernels take.

    Args:
        call: of a spatiotemporal site.
        window: frames on each side that a query sees whole, beside its own.
        pool: height and width of a patch in tokens; ``None``: far frames are not seen.

    Returns:
        ``b h n d``.
    """
    everyone = list(range(call.frames))
    query = frames_of(call, call.query, everyone)
    fine = [frames_of(call, tensor, everyone) for tensor in (call.key, call.value)]
    coarse = None if pool is None else [_pooled(tensor, call, pool) for tensor in fine]
    outputs = []
    for run in _runs(call.frames, window):
        near = [_near(i, call.frames, window) for i in run]
        far = [[j for j in everyone if pool is not None and j not in seen] for seen in near]
        key, value = _side_by_side(call, fine, coarse, near, far)
        output = F.scaled_dot_product_attention(
            _taken(query, run).flatten(0, 1).transpose(1, 2),
            key,
            value,
            attn_mask=_scores(call, near, far, pool),
            scale=call.scale,
        )
        outputs.append(output.transpose(1, 2).unflatten(0, (-1, len(run))))
    video = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    text = text_output(call, dense=True) if coarse is None else _text_output(call, fine, coarse, pool)
    return with_text(call, video.flatten(1, 2), text)


def _text_output(
    call: AttentionCall, fine: list[torch.Tensor], coarse: list[torch.Tensor], pool: int | None
) -> torch.Tensor | None:
    """What text queries ``b s h d`` read from text and from patches of every frame; ``None`` where there is no text."""
    query = text_of(call, call.query)
    if query is None:
        return None
    none: list[list[int]] = [[]]
    everyone = [list(range(call.frames))]
    key, value = _side_by_side(call, fine, coarse, none, everyone)
    output = F.scaled_dot_product_attention(
        query.transpose(1, 2), key, value, attn_mask=_scores(call, none, everyone, pool), scale=call.scale
    )
    return output.transpose(1, 2)


def _side_by_side(
    call: AttentionCall,
    fine: list[torch.Tensor],
    coarse: list[torch.Tensor] | None,
    near: list[list[int]],
    far: list[list[int]],
) -> list[torch.Tensor]:
    """Keys and values ``(b g) h m d`` of g query frames: near frames' tokens, far frames' patches, text."""
    sides = []
    for k, tensor in enumerate((call.key, call.value)):
        parts = [_gathered(fine[k], near)] if near[0] else []
        if coarse is not None and far[0]:
            parts.append(_gathered(coarse[k], far))
        if (words := text_of(call, tensor)) is not None:
            parts.append(words.unsqueeze(1).expand(-1, len(near), -1, -1, -1).flatten(0, 1))
        sides.append((parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).transpose(1, 2))
    return sides


def _near(frame: int, frames: int, window: int) -> list[int]:
    return list(range(max(0, frame - window), min(frames, frame + window + 1)))


def _runs(frames: int, window: int) -> list[list[int]]:
    """Neighbouring query frames that see equally many frames whole: one for each frame at the ends, and the middle."""
    counted = itertools.groupby(range(frames), key=lambda i: len(_near(i, frames, window)))
    return [list(run) for _, run in counted]


def _taken(tensor: torch.Tensor, frames: list[int]) -> torch.Tensor:
    """``b f … -> b g …``: neighbouring frames, a view."""
    return tensor if len(frames) == tensor.shape[1] else tensor[:, frames[0] : frames[-1] + 1]


def _gathered(tensor: torch.Tensor, frames: list[list[int]]) -> torch.Tensor:
    """``b f t h d -> (b g) (m t) h d``: for each of g query frames the tokens of its m frames, one after another."""
    flat = [j for seen in frames for j in seen]
    if flat != list(range(tensor.shape[1])):
        tensor = tensor.index_select(1, torch.tensor(flat, device=tensor.device))
    return tensor.unflatten(1, (len(frames), -1)).flatten(2, 3).flatten(0, 1)


def _pooled(video: torch.Tensor, call: AttentionCall, pool: int) -> torch.Tensor:
    """``b f (H W) h d -> b f p h d``: means over patches of the token grid, those at the border cut off by it."""
    height, width = call.grid.height, call.grid.width
    down, right = -height % pool, -width % pool
    grid = video.unflatten(2, (height, width))
    if down or right:
        grid = F.pad(grid, (0, 0, 0, 0, 0, right, 0, down))
    patches = grid.unflatten(2, (-1, pool)).unflatten(4, (-1, pool))
    # One axis after the other: over one, what is inside it stays one piece of memory, which backends reduce quickly.
    if not (down or right):
        return patches.mean(dim=3).mean(dim=4).flatten(2, 3)
    share = torch.tensor(_patch_sizes(call, pool), dtype=video.dtype, device=video.device)
    return patches.sum(dim=3).sum(dim=4).flatten(2, 3) / share[:, None, None]


def _patch_sizes(call: AttentionCall, pool: int) -> list[float]:
    """Tokens of every patch of a frame."""
    height, width = (
        [min(pool, side - at) for at in range(0, side, pool)] for side in (call.grid.height, call.grid.width)
    )
    return [float(tall * wide) for tall in height for wide in width]


def _scores(call: AttentionCall, near: list[list[int]], far: list[list[int]], pool: int | None) -> torch.Tensor | None:
    """What is added to the scores of each key, ``1 1 1 m`` or ``(b g) h 1 m``, ``None`` for nothing.

    The call's own mask is about text: it is read at the keys of near frames and of text, and patches have none of it.
    """
    pooled = pool is not None and bool(far[0])
    if call.mask is None and not pooled:
        return None
    sizes = _patch_sizes(call, pool) * len(far[0]) if pool is not None and pooled else []
    like = call.query
    if call.mask is None:
        # One constant of a graph, where the number of text tokens is one.
        text = call.key.shape[2] - call.video_tokens
        fixed = isinstance(text, int)
        values = [0.0] * (len(near[0]) * call.tokens_per_frame) + [math.log(size) for size in sizes]
        row = torch.tensor([*values, *([0.0] * text if fixed else [])], dtype=like.dtype, device=like.device)
        row = row if fixed else torch.cat([row, row.new_zeros(text)])
        return row[None, None, None]
    mask = key_mask_of(call).expand(like.shape[0], -1, -1, -1)
    if mask.dtype == torch.bool and pooled:
        mask = torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(~mask, -torch.inf)
    # ``b h 1 n -> b n h 1`` is what keys look like, so that the same code lays it out.
    keys = mask.transpose(2, 3)
    parts = [_gathered(frames_of(call, keys, list(range(call.frames))), near)] if near[0] else []
    if pooled:
        logs = torch.tensor([math.log(size) for size in sizes], dtype=mask.dtype, device=like.device)
        parts.append(logs[None, :, None, None].expand(mask.shape[0] * len(near), -1, mask.shape[1], -1))
    if (words := text_of(call, keys)) is not None:
        parts.append(words.unsqueeze(1).expand(-1, len(near), -1, -1, -1).flatten(0, 1))
    return torch.cat(parts, dim=1).permute(0, 2, 3, 1)
