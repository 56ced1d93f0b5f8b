"""Attention handlers of a baked model: they compute only what is kept."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from f3prune.calibration.attention_hook import AttentionCall
from f3prune.core.errors import InputError


@dataclass(frozen=True)
class ReplacedHeads:
    """Heads from ``dense`` on are replaced; those before attend everywhere.

    ``order`` is set where q and k could not be reordered in the weights: they are gathered into it here.
    """

    dense: int
    attend: Callable[[AttentionCall], torch.Tensor]
    order: tuple[int, ...] | None = None

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        call = _ordered(call, self.order)
        if self.dense == 0:
            return self.attend(call)
        heads = call.query.shape[1]
        parts = [heads_of(call, 0, self.dense).dense(), self.attend(heads_of(call, self.dense, heads))]
        return torch.cat([part.transpose(1, 2) for part in parts], dim=2).transpose(1, 2)


@dataclass(frozen=True)
class LeadingHeads:
    """Only the first ``kept`` heads attend, the rest give zeros that no later layer reads.

    For dropped heads where q and k must stay whole: normalised over all heads together, or rotated head by head.
    """

    kept: int
    order: tuple[int, ...] | None = None

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        call = _ordered(call, self.order)
        dropped = call.query.shape[1] - self.kept
        output = heads_of(call, 0, self.kept).dense()
        return F.pad(output, (0, 0, 0, 0, 0, dropped))


@dataclass(frozen=True)
class KeptPairs:
    """Every query frame attends to its kept key frames and to text; text queries attend everywhere.

    Frames that keep equally many keys are gathered and computed together, so cost follows the kept pairs.
    """

    kept: tuple[tuple[int, ...], ...]

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        if call.frames != len(self.kept):
            raise InputError(
                f"site {call.site.name} was pruned by frame pairs for {len(self.kept)} frames, this call has "
                f"{call.frames}: generate with the calibrated number of frames, or prune by layer or head"
            )
        groups: dict[int, list[int]] = defaultdict(list)
        for i, keys in enumerate(self.kept):
            groups[len(keys)].append(i)
        outputs = [
            _attend(call, queries, [j for i in queries for j in self.kept[i]] if count < call.frames else None)
            for count, queries in groups.items()
        ]
        order = [i for queries in groups.values() for i in queries]
        video = torch.cat(outputs, dim=1)
        if order != sorted(order):
            back = torch.tensor([order.index(i) for i in range(call.frames)], device=video.device)
            video = video.unflatten(1, (call.frames, -1)).index_select(1, back).flatten(1, 2)
        return with_text(call, video, text_output(call, dense=True))


def frame_local(call: AttentionCall) -> torch.Tensor:
    """Video queries attend to their own frame and to text, text queries to text: ``b h n d``."""
    everyone = list(range(call.frames))
    return with_text(call, _attend(call, everyone, everyone), text_output(call, dense=False))


def _attend(call: AttentionCall, queries: list[int], keys: list[int] | None) -> torch.Tensor:
    """Attention of some query frames.

    Frames are folded into the batch while tokens still lie outside heads, as the projections leave them: a frame is
    then one piece of memory, nothing is transposed but heads, and backends see ordinary attention of a larger batch.

    Args:
        call: the call.
        queries: query frames.
        keys: the key frames of every query frame in turn, equally many for each; ``None``: all tokens.

    Returns:
        ``b (queries t) h d``.
    """
    query = frames_of(call, call.query, queries)
    if keys is None:
        output = F.scaled_dot_product_attention(
            query.flatten(1, 2).transpose(1, 2), call.key, call.value, attn_mask=call.mask, scale=call.scale
        )
        return output.transpose(1, 2)
    folded = F.scaled_dot_product_attention(
        query.flatten(0, 1).transpose(1, 2),
        _keys(call, call.key, len(queries), keys).transpose(1, 2),
        _keys(call, call.value, len(queries), keys).transpose(1, 2),
        attn_mask=_key_mask(call, len(queries), keys),
        scale=call.scale,
    )
    return folded.transpose(1, 2).unflatten(0, (-1, len(queries))).flatten(1, 2)


def frames_of(call: AttentionCall, tensor: torch.Tensor, frames: list[int]) -> torch.Tensor:
    """``b h n d -> b (frames) t h d``, the video tokens of some frames."""
    video = tensor.transpose(1, 2)[:, call.video].unflatten(1, (call.frames, call.tokens_per_frame))
    if frames == list(range(call.frames)):
        return video
    return video.index_select(1, torch.tensor(frames, device=tensor.device))


def _keys(call: AttentionCall, tensor: torch.Tensor, groups: int, frames: list[int]) -> torch.Tensor:
    """``b h n d -> (b g) m h d``: for each of ``groups`` query frames its key frames' tokens, then all text."""
    video = frames_of(call, tensor, frames).unflatten(1, (groups, -1)).flatten(2, 3).flatten(0, 1)
    text = text_of(call, tensor)
    if text is None:
        return video
    spread = text.unsqueeze(1).expand(-1, groups, -1, -1, -1).flatten(0, 1)
    return torch.cat([video, spread], dim=1)


def text_of(call: AttentionCall, tensor: torch.Tensor) -> torch.Tensor | None:
    """``b h n d -> b s h d``, the text tokens, those before the video first; ``None`` when there are none."""
    parts = [tensor.transpose(1, 2)[:, part] for part in _text_spans(call)]
    return None if not parts else parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _text_spans(call: AttentionCall) -> list[slice]:
    return [
        span
        for span, size in (
            (slice(0, call.text_before), call.text_before),
            (slice(call.video.stop, None), call.text_after),
        )
        if not (isinstance(size, int) and size == 0)
    ]


def _key_mask(call: AttentionCall, groups: int, frames: list[int]) -> torch.Tensor | None:
    """The call's mask of keys, gathered like ``_keys``: ``(b g) h 1 m``, one head where all heads share it."""
    if call.mask is None:
        return None
    mask = key_mask_of(call).expand(call.query.shape[0], -1, -1, -1)
    return _keys(call, mask.transpose(2, 3), groups, frames).permute(0, 2, 3, 1)


def key_mask_of(call: AttentionCall) -> torch.Tensor:
    mask = call.mask
    if mask is None:
        raise InputError(f"site {call.site.name} has no mask")
    while mask.ndim < 4:
        mask = mask.unsqueeze(0)
    if mask.shape[2] != 1:
        raise InputError(
            f"site {call.site.name} masks attention by query ({tuple(mask.shape)}), which only dense attention "
            f"supports: switch causal or block attention off, or `protect` this site"
        )
    return mask


def with_text(call: AttentionCall, video: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
    """Put the outputs ``b s h d`` of the text queries around those of the video: ``b (f t) h d -> b h n d``."""
    if text is None:
        return video.transpose(1, 2)
    if isinstance(call.text_before, int) and call.text_before == 0:
        parts = [video, text]
    elif isinstance(call.text_after, int) and call.text_after == 0:
        parts = [text, video]
    else:
        parts = [text[:, : call.text_before], video, text[:, call.text_before :]]
    return torch.cat(parts, dim=1).transpose(1, 2)


def text_output(call: AttentionCall, dense: bool) -> torch.Tensor | None:
    """What text queries ``b s h d`` read, from all tokens or from text alone; ``None`` where there is no text."""
    query = text_of(call, call.query)
    if query is None:
        return None
    key, value, mask = call.key, call.value, call.mask
    if not dense:
        text_key, text_value = text_of(call, key), text_of(call, value)
        if text_key is None or text_value is None:
            return None
        key, value = text_key.transpose(1, 2), text_value.transpose(1, 2)
        if mask is not None:
            text_mask = text_of(call, key_mask_of(call).transpose(2, 3))
            mask = None if text_mask is None else text_mask.permute(0, 2, 3, 1)
    output = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=mask, scale=call.scale)
    return output.transpose(1, 2)


def _ordered(call: AttentionCall, order: tuple[int, ...] | None) -> AttentionCall:
    if order is None:
        return call
    index = torch.tensor(order, device=call.query.device)
    query, key = (tensor.transpose(1, 2).index_select(2, index).transpose(1, 2) for tensor in (call.query, call.key))
    return dataclasses.replace(call, query=query, key=key)


def heads_of(call: AttentionCall, start: int, stop: int) -> AttentionCall:
    """The same call for heads ``start`` to ``stop - 1``, cut while heads lie inside tokens (see ``_attend``)."""
    mask = call.mask
    if mask is not None and mask.ndim >= 3 and mask.shape[-3] > 1:
        mask = mask[..., start:stop, :, :]
    query, key, value = (
        tensor.transpose(1, 2)[:, :, start:stop].transpose(1, 2) for tensor in (call.query, call.key, call.value)
    )
    return dataclasses.replace(call, query=query, key=key, value=value, mask=mask)


def take_heads(call: AttentionCall, heads: Sequence[int]) -> AttentionCall:
    """The same call for some heads, in the order given."""
    index = torch.tensor(list(heads), device=call.query.device)
    mask = call.mask
    if mask is not None and mask.ndim >= 3 and mask.shape[-3] > 1:
        mask = mask.index_select(-3, index)
    query, key, value = (tensor.index_select(1, index) for tensor in (call.query, call.key, call.value))
    return dataclasses.replace(call, query=query, key=key, value=value, mask=mask)
