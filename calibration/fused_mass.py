"""Attention and its frame mass from one pass over the scores, exact, with no score matrix.

Keys fall into spans: one for every frame, and the text. Three ways to learn each span's share of a query's attention
while its output is computed; ``cheaper_by_frames`` says which is taken:

- **by frames**: attention to each span on its own, by the fused kernel, which also gives the log-sum-exp of the
  scores. The softmax over the spans' log-sum-exps is the share, and the shares mix the spans' outputs. The products
  are those of dense attention; what is added is the mixing, a pass over the output for every span.
- **by indicators**: the values get one column per span, 1 at the span's keys and 0 elsewhere, so that the output's
  added columns are the shares. One call of the public function, on any device. The kernels want one width for query,
  key and value, so query and key are padded with zeros, which changes no score; what is added is the wider products.
  In float32 the last span needs no column: its share is what the others leave.
- **sampled queries** (``--rows``): their shares alone are wanted, so that the indicators are all the values there are.
- **short sequences** (temporal sites): the probabilities of a few thousand short sequences fit in a core's cache,
  where two batched products are as fast as the fused kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from f3prune.calibration.attention_hook import AttentionCall

PIECE_BYTES = 64 * 2**20
"""Upper bound, in bytes, of what one piece of batch and heads adds to memory, if it has more than one head."""
CACHE_BYTES = {"cpu": 2**20}
"""Probabilities of short sequences computed at once: a core's cache."""
CACHE_BYTES_ELSEWHERE = 2**26
MIXING_COST = 32
"""Mixing one element of one span's output costs as much as so many multiply-adds per product (of the two products).
Measured on 2 cores at 6 shapes, 64 to 512 tokens a frame: 16 to 46: docs/decisions, number 31."""


def attend(
    call: AttentionCall, spans: Sequence[slice], asking: slice, per_frame: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention, and the mean share of every span.

    Args:
        call: attention call, ``b h n d``.
        spans: where the keys of each span are; together they are all keys.
        asking: the queries that count.
        per_frame: so many of them in turn are averaged.

    Returns:
        ``b h n d`` in the query's dtype, and ``b h (n / per_frame) s`` float32, whose rows sum to 1.
    """
    batch, heads, queries, dim = call.query.shape
    by_frames = _has_kernel(call.query) and cheaper_by_frames(call.key.shape[2], dim, len(spans))
    way = _by_frames if by_frames else _by_indicators
    output = call.query.new_empty(batch, queries, heads, dim).transpose(1, 2)
    shares = []
    width = 3 * dim + len(spans) if by_frames else 4 * _padded(dim + len(spans))
    pair_bytes = 4 * width * max(queries, call.key.shape[2])
    for b, hs in _pieces(batch, heads, pair_bytes):
        row = []
        for h in hs:
            found, share = way(
                call.query[b, h], call.key[b, h], call.value[b, h], part_of_mask(call.mask, b, h), call.scale, spans
            )
            output[b, h] = found
            row.append(share[:, :, asking].unflatten(2, (-1, per_frame)).mean(3))
        shares.append(torch.cat(row, dim=1))
    return output, _completed(torch.cat(shares), len(spans))


def attend_short(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor]:
    """The same at a temporal site: ``b h f d``, and ``h f (f+1)`` float32, averaged over the batch."""
    batch, heads, frames, dim = call.query.shape
    output = call.query.new_empty(batch, frames, heads, dim).transpose(1, 2)
    mass = torch.zeros(heads, frames, frames + 1, device=call.query.device)
    room = CACHE_BYTES.get(call.query.device.type, CACHE_BYTES_ELSEWHERE)
    block = max(1, room // (4 * heads * frames * frames))
    for start in range(0, batch, block):
        b = slice(start, start + block)
        scores = call.query[b].float() @ call.key[b].float().transpose(-1, -2)
        scores *= call.scale
        mask = part_of_mask(call.mask, b, slice(None))
        if mask is not None:
            scores += _additive(mask, torch.float32)
        probabilities = torch.softmax(scores, dim=-1)
        output[b] = (probabilities @ call.value[b].float()).to(output.dtype)
        mass[..., :frames] += probabilities.sum(0)
    return output, mass / batch


def key_spans(call: AttentionCall) -> list[slice]:
    """The keys of every frame in turn, then those of the text before and after the video, where there is any."""
    start, size = call.text_before, call.tokens_per_frame
    spans = [slice(start + i * size, start + (i + 1) * size) for i in range(call.frames)]
    if call.text_before:
        spans.append(slice(0, call.text_before))
    if call.text_after:
        spans.append(slice(call.video.stop, call.video.stop + call.text_after))
    return spans


def cheaper_by_frames(keys: int, dim: int, spans: int) -> bool:
    """Whether mixing ``spans`` outputs costs less than widening both products, for each query of a head."""
    return MIXING_COST * spans * dim < keys * (_padded(dim + spans) - dim)


def part_of_mask(mask: torch.Tensor | None, b: slice, h: slice) -> torch.Tensor | None:
    """The mask of some entries of the batch and some heads, with four axes."""
    if mask is None:
        return None
    while mask.ndim < 4:
        mask = mask.unsqueeze(0)
    mask = mask[b] if mask.shape[0] > 1 else mask
    return mask[:, h] if mask.shape[1] > 1 else mask


def _by_frames(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    spans: Sequence[slice],
) -> tuple[torch.Tensor, torch.Tensor]:
    """``b h n d`` float32 or wider, and the shares ``b h n s`` float32."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mask = None if mask is None else _additive(mask, query.dtype)
    sums: list[torch.Tensor] = []
    output: torch.Tensor
    total: torch.Tensor
    for span in spans:
        part = None if mask is None else mask[..., span]
        found, log_sum = kernel(query, key[:, :, span], value[:, :, span], attn_mask=part, scale=scale)
        if part is not None:
            # The kernel gives 0 for a query that may attend to nothing here; the logarithm of nothing is -inf.
            log_sum = log_sum.masked_fill((part == -torch.inf).all(-1), -torch.inf)
        if not sums:
            # Mixed in float32: in half precision every span would round the output once more.
            output, total = found.float(), log_sum
        else:
            weight = torch.sigmoid(log_sum - total)
            if part is not None:
                weight = weight.nan_to_num(0.0)
            total = torch.logaddexp(total, log_sum)
            output.lerp_(found.float(), weight.unsqueeze(-1))
        sums.append(log_sum)
    return output, torch.softmax(torch.stack(sums, dim=-1), dim=-1)


def _by_indicators(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    spans: Sequence[slice],
) -> tuple[torch.Tensor, torch.Tensor]:
    """``b h n d``, and the shares that have a column, float32: what the last one is left is asked after averaging."""
    dim = query.shape[-1]
    width = _padded(dim + _columns(query.dtype, len(spans)))
    wide = torch.cat([value, _indicators(value, spans, width - dim)], dim=-1)
    padding = (0, width - dim)
    output = F.scaled_dot_product_attention(
        F.pad(query, padding), F.pad(key, padding), wide, attn_mask=mask, dropout_p=0.0, scale=scale
    )
    return output[..., :dim], _columns_of(output[..., dim:], len(spans))


def shares_of(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    spans: Sequence[slice],
) -> torch.Tensor:
    """The share of every span, without the attention's output.

    Args:
        query: the queries that count, ``b h m d`` float32.
        key: all keys, ``b h n d`` float32.
        mask: their scores' mask, broadcastable to ``b h m n``, boolean (true = attend) or float32.
        scale: factor of the scores.
        spans: where the keys of each span are; together they are all keys.

    Returns:
        ``b h m s`` float32, whose rows sum to 1.
    """
    dim = query.shape[-1]
    width = max(dim, _padded(_columns(query.dtype, len(spans))))
    padding = (0, width - dim)
    output = F.scaled_dot_product_attention(
        F.pad(query, padding) if width > dim else query,
        F.pad(key, padding) if width > dim else key,
        _indicators(key, spans, width),
        attn_mask=mask,
        dropout_p=0.0,
        scale=scale,
    )
    return _completed(_columns_of(output, len(spans)), len(spans))


def _columns(dtype: torch.dtype, spans: int) -> int:
    """Indicator columns for so many spans; a single span has its own."""
    return spans - 1 if dtype == torch.float32 and spans > 1 else spans


def _indicators(like: torch.Tensor, spans: Sequence[slice], width: int) -> torch.Tensor:
    """``b h n width`` for keys ``b h n d``: 1 in a span's column at its keys, else 0; a view of one matrix."""
    places = tuple((span.start, span.stop) for span in spans[: _columns(like.dtype, len(spans))])
    return _indicator_matrix(places, like.shape[2], width, like.dtype, like.device).expand(*like.shape[:2], -1, -1)


@functools.lru_cache(maxsize=8)
def _indicator_matrix(
    places: tuple[tuple[int, int], ...], keys: int, width: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    matrix = torch.zeros(keys, width, dtype=dtype, device=device)
    for column, (start, stop) in enumerate(places):
        matrix[start:stop, column] = 1
    return matrix


def _columns_of(output: torch.Tensor, spans: int) -> torch.Tensor:
    """The shares that have an indicator column, from the output's added columns ``b h m …``, float32."""
    count = _columns(output.dtype, spans)
    share = output[..., :count].float()
    if count < spans:
        return share
    # A kernel in half precision rounds the weights of a row after it has added them up, so that the shares miss 1 by
    # as much. All of them are sums of the same rounded weights: divided by their own sum they are its exact parts.
    return share / share.sum(-1, keepdim=True)


def _completed(share: torch.Tensor, spans: int) -> torch.Tensor:
    """The shares of all spans, ``… s``: the last one's is what others leave, if it has none yet."""
    if share.shape[-1] == spans:
        return share
    return torch.cat([share, (1 - share.sum(-1, keepdim=True)).clamp_min_(0.0)], dim=-1)


def _padded(width: int) -> int:
    """The next multiple of 8: what the kernels of all devices take."""
    return -(-width // 8) * 8


def _pieces(batch: int, heads: int, pair_bytes: int) -> Iterator[tuple[slice, list[slice]]]:
    """Cut batch and heads so that a piece adds at most ``PIECE_BYTES``: parts of the batch, and the heads of each."""
    room = max(1, PIECE_BYTES // pair_bytes)
    by_heads = min(heads, room)
    by_batch = min(batch, max(1, room // heads))
    hs = [slice(h, h + by_heads) for h in range(0, heads, by_heads)]
    for b in range(0, batch, by_batch):
        yield slice(b, b + by_batch), hs


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def _has_kernel(query: Any) -> bool:
    """Whether the fused kernel that also gives the log-sum-exp is there."""
    return query.device.type == "cpu" and query.dtype in (torch.float32, torch.bfloat16, torch.float16)
