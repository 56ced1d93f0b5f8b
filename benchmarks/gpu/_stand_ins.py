"""Cheap stand-ins for attention over all frames, as attention handlers: real work saved, no mask over dense scores.

``Near`` attends to a query's own frame, ``window`` frames on each side and text. With ``pool`` it attends to every
other frame as well, by keys and values averaged over patches of the token grid, whose scores get the log of the patch's
size. Text queries attend to everything. Two forms compute the same:

``folded``: the keys of every query frame are gathered side by side, frames go into the batch, one kernel call.
``split``: keys stay where they are (windows are overlapping views); one kernel call for each kind of key, and the
results are mixed by their log-sum-exps. Nothing but pooled keys is copied.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from f3prune.calibration.attention_hook import AttentionCall
from f3prune.calibration.bake.attention import KeptPairs

Form = Literal["folded", "split"]
Part = tuple[torch.Tensor, torch.Tensor]
"""An attention's output ``g n h d`` and its log-sum-exps ``g h n``."""
_ALIGNED = 8


@dataclass(frozen=True)
class Near:
    """Attributes:
    grid: height and width of a frame's token grid.
    window: frames seen whole on each side of a query's own.
    pool: height and width of the patches that other frames are averaged over; ``None`` to see none of them.
    form: how it is computed.
    kernel: ``flash`` or ``cudnn``, of the form ``split``.
    text_sees: what text queries attend to: ``everything``, or ``text`` alone as in a frame-local layer.
    """

    grid: tuple[int, int]
    window: int = 0
    pool: tuple[int, int] | None = None
    form: Form = "folded"
    kernel: str = "flash"
    text_sees: Literal["everything", "text"] = "everything"

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        """``b h n d``."""
        if self.form == "split":
            return self._split(call)
        if self.pool is None:
            kept = tuple(tuple(near) for near, _ in self.neighbours(call.frames))
            return KeptPairs(kept)(call)
        return self._folded(call)

    def neighbours(self, frames: int) -> list[tuple[list[int], list[int]]]:
        """For every query frame the frames seen whole and those seen pooled."""
        found = []
        for i in range(frames):
            near = [j for j in range(frames) if abs(i - j) <= self.window]
            found.append((near, [j for j in range(frames) if j not in near] if self.pool else []))
        return found

    def keys(self, frames: int, text: int) -> int:
        """Keys that all video queries together see, over the tokens of a frame."""
        tokens, cells = math.prod(self.grid), self.cells
        return sum(len(near) * tokens + len(far) * cells + text for near, far in self.neighbours(frames))

    @property
    def cells(self) -> int:
        """Pooled tokens of a frame."""
        if self.pool is None:
            return 0
        return math.prod(-(-side // size) for side, size in zip(self.grid, self.pool, strict=True))

    def counts(self, like: torch.Tensor) -> torch.Tensor:
        """Tokens that every pooled token stands for ``c``, in the dtype and on the device of ``like``."""
        if self.pool is None:
            return like.new_zeros(0)
        ones = like.new_ones(1, 1, *self.grid)
        return (self._pooled_grid(ones) * math.prod(self.pool)).flatten().round()

    def _pooled_grid(self, grid: torch.Tensor) -> torch.Tensor:
        """``n c h w -> n c h' w'``: sums over patches, over the size of a whole patch."""
        if self.pool is None:
            return grid
        short = [-side % size for side, size in zip(self.grid, self.pool, strict=True)]
        return F.avg_pool2d(F.pad(grid, (0, short[1], 0, short[0])), self.pool)

    def pooled(self, call: AttentionCall, tensor: torch.Tensor) -> torch.Tensor:
        """``b h n d -> b f c h d``: keys or values of every frame, averaged over patches."""
        batch, heads, _, width = tensor.shape
        video = tensor.transpose(1, 2)[:, call.video].reshape(batch * call.frames, *self.grid, heads * width)
        if self.pool is not None and all(side % size == 0 for side, size in zip(self.grid, self.pool, strict=True)):
            (rows, columns), (tall, wide) = self.grid, self.pool
            patches = video.view(-1, rows // tall, tall, columns // wide, wide, heads * width)
            means = patches.mean(dim=(2, 4))
        else:
            sums = self._pooled_grid(video.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            shape = [-(-side // size) for side, size in zip(self.grid, self.pool or (1, 1), strict=True)]
            share = self.counts(sums).view(*shape, 1) / math.prod(self.pool or (1, 1))
            means = sums / share
        return means.reshape(batch, call.frames, -1, heads, width)

    def _groups(self, frames: int) -> dict[int, list[int]]:
        """Query frames that see equally many frames whole."""
        groups: dict[int, list[int]] = defaultdict(list)
        for i, (near, _) in enumerate(self.neighbours(frames)):
            groups[len(near)].append(i)
        return groups

    def _folded(self, call: AttentionCall) -> torch.Tensor:
        near_far = self.neighbours(call.frames)
        query, key, value = (_frames(call, tensor) for tensor in (call.query, call.key, call.value))
        coarse = [self.pooled(call, tensor) for tensor in (call.key, call.value)]
        text = [_text(call, tensor) for tensor in (call.key, call.value)]
        bias = self.counts(call.key).float().log().to(call.key.dtype)
        batch, frames, tokens, heads, _ = query.shape
        video = torch.empty_like(query, memory_format=torch.contiguous_format)
        for count, asking in self._groups(frames).items():
            whole = [j for i in asking for j in near_far[i][0]]
            others = [j for i in asking for j in near_far[i][1]]
            parts = []
            for fine, pooled, words in zip((key, value), coarse, text, strict=True):
                kinds = [_gather(fine, whole, len(asking)), _gather(pooled, others, len(asking))]
                if words is not None:
                    kinds.append(words.unsqueeze(1).expand(-1, len(asking), -1, -1, -1))
                parts.append(torch.cat(kinds, dim=2).flatten(0, 1).transpose(1, 2))
            row = _aligned(parts[0].shape[2], call.key)
            far = (frames - count) * bias.numel()
            row[count * tokens : count * tokens + far] = bias.repeat(frames - count)
            mask = row.expand(batch * len(asking), heads, tokens, -1)
            chosen = _take(query, asking).flatten(0, 1).transpose(1, 2)
            output = F.scaled_dot_product_attention(chosen, *parts, attn_mask=mask, scale=call.scale)
            video[:, asking] = output.transpose(1, 2).unflatten(0, (batch, -1))
        words = self._words(call)
        parts = [video.flatten(1, 2)] if words is None else [words, video.flatten(1, 2)]
        return torch.cat(parts if call.text_before else parts[::-1], dim=1).transpose(1, 2)

    def _split(self, call: AttentionCall) -> torch.Tensor:
        even = self.pool is None or all(side % size == 0 for side, size in zip(self.grid, self.pool, strict=True))
        coarse = [self.pooled(call, tensor) for tensor in (call.key, call.value)] if self.pool else []
        counts = self.counts(call.key).float()
        result = torch.empty_like(call.query.transpose(1, 2), memory_format=torch.contiguous_format)
        video = _frames(call, result.transpose(1, 2))
        for sample in range(call.query.shape[0]):
            query, key, value = (t[sample : sample + 1] for t in (call.query, call.key, call.value))
            video_q, video_k, video_v = (t[:, :, call.video] for t in (query, key, value))
            parts = [self._whole(call, video_q[0], video_k[0], video_v[0])]
            words_k, words_v = (_text(call, tensor) for tensor in (key, value))
            if words_k is not None and words_v is not None:
                found = attention(
                    video_q, words_k.transpose(1, 2), words_v.transpose(1, 2), call.scale, kernel=self.kernel
                )
                parts.append(_by_frames(found, call.frames))
            if self.pool:
                parts.append(self._coarse(call, video_q[0], coarse[0][sample], coarse[1][sample], counts, even))
            video[sample] = mix(parts)
        if (words := self._words(call)) is not None:
            result[:, _text_span(call)] = words
        return result.transpose(1, 2)

    def _words(self, call: AttentionCall) -> torch.Tensor | None:
        """What text queries get, from all tokens or from text alone: ``b s h d``."""
        query = _text(call, call.query)
        if query is None or not call.text_queries:
            return None
        span = slice(None) if self.text_sees == "everything" else _text_span(call)
        key, value = call.key[:, :, span], call.value[:, :, span]
        return F.scaled_dot_product_attention(query.transpose(1, 2), key, value, scale=call.scale).transpose(1, 2)

    def _whole(self, call: AttentionCall, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Part:
        """Own and neighbouring frames: ``h (f t) d`` each."""
        frames, tokens, reach = call.frames, call.tokens_per_frame, self.window
        asks = _one_by_one(query, frames)
        if reach == 0:
            found = attention(
                asks, _one_by_one(key, frames), _one_by_one(value, frames), call.scale, kernel=self.kernel
            )
            return found[0].transpose(1, 2), found[1]
        parts = []
        inner = (reach, frames - reach)
        spans = [(0, reach), inner, (frames - reach, frames)] if frames > 2 * reach else [(0, frames)]
        for first, last in spans:
            if (first, last) == inner:
                size = (2 * reach + 1) * tokens
                keys, values = (t.unfold(1, size, tokens).permute(1, 0, 3, 2) for t in (key, value))
                parts.append(attention(asks[first:last], keys, values, call.scale, kernel=self.kernel))
                continue
            for i in range(first, last):
                seen = slice(max(0, i - reach) * tokens, min(frames, i + reach + 1) * tokens)
                parts.append(
                    attention(asks[i : i + 1], key[None, :, seen], value[None, :, seen], call.scale, kernel=self.kernel)
                )
        return torch.cat([p.transpose(1, 2) for p, _ in parts]), torch.cat([lse for _, lse in parts])

    def _coarse(
        self,
        call: AttentionCall,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        counts: torch.Tensor,
        even: bool,
    ) -> Part:
        """The other frames, pooled: ``h (f t) d`` and ``f c h d`` twice."""
        near_far = self.neighbours(call.frames)
        asks = _one_by_one(query, call.frames)
        output = query.new_empty(call.frames, call.tokens_per_frame, query.shape[0], query.shape[2])
        sums = torch.empty(call.frames, query.shape[0], call.tokens_per_frame, device=query.device)
        for asking in self._groups(call.frames).values():
            far = [near_far[i][1] for i in asking]
            if not far[0]:
                output[asking], sums[asking] = 0.0, -torch.inf
                continue
            index = torch.tensor(far, device=query.device)
            keys, values = (t[index].flatten(1, 2).transpose(1, 2) for t in (key, value))
            row = None
            if not even:
                row = _aligned(keys.shape[2], query)
                row.copy_(counts.log().repeat(len(far[0])))
            found = attention(_take(asks, asking, 0), keys, values, call.scale, row, self.kernel)
            span = slice(asking[0], asking[-1] + 1) if asking == list(range(asking[0], asking[-1] + 1)) else asking
            output[span] = found[0].transpose(1, 2)
            sums[span] = found[1] + (math.log(float(math.prod(self.pool or (1, 1)))) if even else 0.0)
        return output, sums


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    row: torch.Tensor | None = None,
    kernel: str = "flash",
) -> Part:
    """Attention ``g h n d`` with its log-sum-exps ``g h n`` (float32); ``row`` is added to the scores of each key."""
    ops: Any = torch.ops.aten
    if query.device.type != "cuda":
        scores = (query.float() @ key.float().transpose(-1, -2)) * scale
        scores = scores if row is None else scores + row.float()
        return (scores.softmax(-1) @ value.float()).to(query.dtype), scores.logsumexp(-1)
    if row is not None:
        mask = row.expand(*query.shape[:3], -1)
        found = ops._scaled_dot_product_efficient_attention(query, key, value, mask, True, scale=scale)
        return found[0], found[1][..., : query.shape[2]]
    if kernel == "cudnn":
        found = ops._scaled_dot_product_cudnn_attention(query, key, value, None, True, scale=scale)
        return found[0], found[1].view(query.shape[:3])
    found = ops._scaled_dot_product_flash_attention(query, key, value, scale=scale)
    return found[0], found[1]


def mix(parts: Sequence[Part]) -> torch.Tensor:
    """Attention over the keys of all parts, from that over each: ``g n h d``."""
    output, sums = parts[0]
    for other, others in parts[1:]:
        weight = torch.sigmoid(others - sums).to(output.dtype).transpose(1, 2).unsqueeze(-1)
        output = torch.lerp(output, other, weight)
        sums = torch.logaddexp(sums, others)
    return output


def _one_by_one(tensor: torch.Tensor, frames: int) -> torch.Tensor:
    """``h (f t) d -> f h t d``, a view."""
    return tensor.unflatten(1, (frames, -1)).transpose(0, 1)


def _by_frames(part: Part, frames: int) -> Part:
    """``1 h (f t) d`` and ``1 h (f t)`` -> ``f t h d`` and ``f h t``."""
    output, sums = part
    return output[0].transpose(0, 1).unflatten(0, (frames, -1)), sums[0].unflatten(1, (frames, -1)).transpose(0, 1)


def _frames(call: AttentionCall, tensor: torch.Tensor) -> torch.Tensor:
    """``b h n d -> b f t h d``, the video tokens."""
    return tensor.transpose(1, 2)[:, call.video].unflatten(1, (call.frames, call.tokens_per_frame))


def _text_span(call: AttentionCall) -> slice:
    """Where the text tokens are."""
    return slice(0, call.text_before) if call.text_before else slice(call.video.stop, None)


def _text(call: AttentionCall, tensor: torch.Tensor) -> torch.Tensor | None:
    """``b h n d -> b s h d``, the text tokens."""
    if call.text_before + call.text_after == 0:
        return None
    return tensor.transpose(1, 2)[:, _text_span(call)]


def _take(tensor: torch.Tensor, frames: list[int], axis: int = 1) -> torch.Tensor:
    """Some frames of an axis, a view where they are neighbours."""
    if frames == list(range(frames[0], frames[-1] + 1)):
        return tensor.narrow(axis, frames[0], len(frames))
    return tensor.index_select(axis, torch.tensor(frames, device=tensor.device))


def _gather(tensor: torch.Tensor, frames: list[int], groups: int) -> torch.Tensor:
    """``b f t h d -> b g (k t) h d``: the frames of every group in turn."""
    if not frames:
        return tensor.new_empty(tensor.shape[0], groups, 0, *tensor.shape[3:])
    return tensor.index_select(1, torch.tensor(frames, device=tensor.device)).unflatten(1, (groups, -1)).flatten(2, 3)


def _aligned(length: int, like: torch.Tensor) -> torch.Tensor:
    """Zeros ``m`` in memory that a kernel may read eight numbers at a time."""
    return like.new_zeros(-(-length // _ALIGNED) * _ALIGNED)[:length]


def exact_rows(handler: Near | None, call: AttentionCall, queries: torch.Tensor) -> torch.Tensor:
    """What some video queries must get, computed in float32 over all keys under a mask: ``b h q d``.

    Args:
        handler: whose definition counts; ``None`` for dense attention.
        call: the call.
        queries: positions ``q`` of video queries in the sequence, int64.
    """
    key, value = call.key.float(), call.value.float()
    device = key.device
    text = torch.full((key.shape[2],), -1, device=device)
    text[call.video] = torch.arange(call.frames, device=device).repeat_interleave(call.tokens_per_frame)
    frame_of, bias = text, torch.zeros(key.shape[2], device=device)
    pooled = torch.zeros_like(bias, dtype=torch.bool)
    if handler is not None and handler.pool:
        coarse = [handler.pooled(call, t).flatten(1, 2).transpose(1, 2).float() for t in (call.key, call.value)]
        key, value = (torch.cat([a, b], dim=2) for a, b in zip((key, value), coarse, strict=True))
        counts = handler.counts(call.key).float().repeat(call.frames)
        frame_of = torch.cat([frame_of, torch.arange(call.frames, device=device).repeat_interleave(handler.cells)])
        bias = torch.cat([bias, counts.log()])
        pooled = torch.cat([pooled, torch.ones_like(counts, dtype=torch.bool)])
    scores = call.query[:, :, queries].float() @ key.transpose(-1, -2) * call.scale + bias
    if handler is not None:
        near = (frame_of[queries][:, None] - frame_of[None, :]).abs() <= handler.window
        seen = torch.where(pooled, ~near, near | (frame_of == -1))
        scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ value


class MeanMap(nn.Module):
    """``static``: temporal attention with constant weights, one map over frames for each head.

    ``y_i = b + Σ_h W_o,h Σ_j P_h[i, j] (W_v,h x_j + b_v,h)``; no queries, keys or softmax.
    """

    def __init__(self, value: nn.Linear, output: nn.Linear, maps: torch.Tensor) -> None:
        """Give the projections and the maps ``h f f``."""
        super().__init__()
        self.value, self.output = value, output
        self.register_buffer("maps", maps)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``b f c -> b f c``."""
        maps: torch.Tensor = self.get_buffer("maps")
        values = self.value(hidden_states).unflatten(-1, (maps.shape[0], -1))
        mixed = torch.einsum("hij,bjhd->bihd", maps, values)
        result: torch.Tensor = self.output(mixed.flatten(-2))
        return result
