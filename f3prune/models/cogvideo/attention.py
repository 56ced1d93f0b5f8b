"""The two attention channels of a CogVideo layer (ARCHITECTURE of the original: base and plus)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from f3prune.models.cogvideo.cache import write


class SpatialAttention(nn.Module):
    """Text attends to text; a frame's slots attend to text and to their own frame.

    Attributes:
        frame_out: output projection of frames, where it is another one than text's: a refit of a layer whose temporal
            channel was dropped.
    """

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.to_out = nn.Linear(hidden_size, hidden_size)
        self.frame_out: nn.Linear | None = None

    def forward(
        self,
        hidden: torch.Tensor,
        frame_len: int,
        text_bias: torch.Tensor,
        frame_bias: torch.Tensor | None,
        alone: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attention over text and whole frames.

        Args:
            hidden: ``b (t + f F) c``.
            frame_len: F.
            text_bias: ``b 1 1 t``, added to scores towards text.
            frame_bias: ``f F F``, added to scores within frames; None where there are no frames.
            alone: the frames are drawn without a temporal channel, and ``frame_out`` is not for them.

        Returns:
            ``b (t + f F) c``, and the keys and values ``b h (t + f F) d``.
        """
        text = text_bias.shape[-1]
        query, key, value = (split_heads(part, self.heads) for part in self.to_qkv(hidden).chunk(3, dim=-1))
        output = F.scaled_dot_product_attention(
            query[:, :, :text], key[:, :, :text], value[:, :, :text], attn_mask=text_bias
        )
        if frame_bias is not None:
            frames = own_frame_attention(query[:, :, text:], key, value, text_bias, frame_bias, frame_len)
            if self.frame_out is not None and not alone:
                parts = [self.to_out(merge_heads(output)), self.frame_out(merge_heads(frames))]
                return torch.cat(parts, dim=1), key, value
            output = torch.cat([output, frames], dim=2)
        return self.to_out(merge_heads(output)), key, value

    def step(
        self,
        hidden: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slot: torch.Tensor,
        bias: torch.Tensor,
        alone: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A frame's slot: ``hidden`` is ``b 1 c``, the caches ``b h n d``, ``slot`` ``1``, ``bias`` ``b 1 1 n``."""
        query, key, value = (split_heads(part, self.heads) for part in self.to_qkv(hidden).chunk(3, dim=-1))
        keys, values = write(keys, key, slot), write(values, value, slot)
        output = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
        to_out = self.to_out if self.frame_out is None or alone else self.frame_out
        return to_out(merge_heads(output)), keys, values


class TemporalAttention(nn.Module):
    """A frame's slots attend to text and to slots of several frames; this is what F3-Pruning prunes.

    Attributes:
        heads: of this module, pruned ones included while they are frame-local.
        local_heads: how many of them, the last ones, are frame-local: text and the own frame only.
    """

    def __init__(self, hidden_size: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.local_heads = 0
        self.to_q = nn.Linear(hidden_size, heads * head_dim)
        self.to_k = nn.Linear(hidden_size, heads * head_dim)
        self.to_v = nn.Linear(hidden_size, heads * head_dim)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_dim, hidden_size)])

    @property
    def dense_heads(self) -> int:
        """Heads that attend to other frames."""
        return self.heads - self.local_heads

    def forward(
        self,
        hidden: torch.Tensor,
        frame_len: int,
        text_bias: torch.Tensor,
        temporal_bias: torch.Tensor,
        local_bias: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attention of whole frames.

        Args:
            hidden: ``b (t + f F) c``.
            frame_len: F.
            text_bias: ``b 1 1 t``.
            temporal_bias: ``(f F) (f F)``, added to the dense heads' scores between frames.
            local_bias: ``f F F``, added to the frame-local heads' scores.

        Returns:
            ``b (f F) c``, and the keys and values ``b h (t + f F) d``.
        """
        text, dense = text_bias.shape[-1], self.dense_heads
        query = split_heads(self.to_q(hidden[:, text:]), self.heads)
        key, value = split_heads(self.to_k(hidden), self.heads), split_heads(self.to_v(hidden), self.heads)
        parts = []
        if dense:
            rows = temporal_bias.shape[0]
            bias = torch.cat(
                [text_bias.expand(-1, -1, rows, -1), temporal_bias.expand(text_bias.shape[0], 1, -1, -1)], dim=-1
            )
            parts.append(
                F.scaled_dot_product_attention(query[:, :dense], key[:, :dense], value[:, :dense], attn_mask=bias)
            )
        if self.local_heads:
            parts.append(
                own_frame_attention(
                    query[:, dense:], key[:, dense:], value[:, dense:], text_bias, local_bias, frame_len
                )
            )
        return self.to_out[0](merge_heads(joined(parts, 1))), key, value

    def keys_values(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values ``b h s d`` of ``hidden`` (``b s c``), which makes no queries: text alone."""
        return split_heads(self.to_k(hidden), self.heads), split_heads(self.to_v(hidden), self.heads)

    def step(
        self,
        hidden: torch.Tensor,
        caches: dict[str, torch.Tensor],
        video_slot: torch.Tensor,
        frame_slot: torch.Tensor,
        temporal_bias: torch.Tensor,
        local_bias: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """One slot.

        Args:
            hidden: ``b 1 c``.
            caches: ``temporal_key``, ``temporal_value`` where heads are dense, ``local_key``, ``local_value`` where
                heads are frame-local.
            video_slot, frame_slot: ``1``, where the slot goes in each.
            temporal_bias, local_bias: ``b 1 1 n``, over the slots of each.

        Returns:
            ``b 1 c`` and the caches with the slot's key and value in them.
        """
        dense = self.dense_heads
        query = split_heads(self.to_q(hidden), self.heads)
        new = {"key": split_heads(self.to_k(hidden), self.heads), "value": split_heads(self.to_v(hidden), self.heads)}
        parts, written = [], {}
        groups = (
            ("temporal", slice(None, dense), video_slot, temporal_bias),
            ("local", slice(dense, None), frame_slot, local_bias),
        )
        for group, heads, slot, bias in groups:
            if f"{group}_key" not in caches:
                continue
            for kind, tensor in new.items():
                written[f"{group}_{kind}"] = write(caches[f"{group}_{kind}"], tensor[:, heads], slot)
            parts.append(
                F.scaled_dot_product_attention(
                    query[:, heads], written[f"{group}_key"], written[f"{group}_value"], attn_mask=bias
                )
            )
        return self.to_out[0](merge_heads(joined(parts, 1))), written


def own_frame_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    text_bias: torch.Tensor,
    frame_bias: torch.Tensor,
    frame_len: int,
) -> torch.Tensor:
    """Every frame's queries attend to text and to their own frame, one softmax over both.

    Args:
        query: ``b h (f F) d``.
        key, value: ``b h (t + f F) d``.
        text_bias: ``b 1 1 t``.
        frame_bias: ``f F F``.
        frame_len: F.

    Returns:
        ``b h (f F) d``.
    """
    text, frames = text_bias.shape[-1], frame_bias.shape[0]

    def folded(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.unflatten(2, (frames, frame_len)).transpose(1, 2).flatten(0, 1)

    def with_text(tensor: torch.Tensor) -> torch.Tensor:
        shared = tensor[:, None, :, :text].expand(-1, frames, -1, -1, -1).flatten(0, 1)
        return torch.cat([shared, folded(tensor[:, :, text:])], dim=2)

    batch = text_bias.shape[0]
    towards_text = text_bias[:, None].expand(-1, frames, -1, frame_len, -1)
    within = frame_bias[None, :, None].expand(batch, -1, -1, -1, -1)
    bias = torch.cat([towards_text, within], dim=-1).flatten(0, 1)
    output = F.scaled_dot_product_attention(folded(query), with_text(key), with_text(value), attn_mask=bias)
    return output.unflatten(0, (-1, frames)).transpose(1, 2).flatten(2, 3)


def split_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """``b n (h d) -> b h n d``."""
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(tensor: torch.Tensor) -> torch.Tensor:
    """``b h n d -> b n (h d)``."""
    return tensor.transpose(1, 2).flatten(2)


def joined(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
    """Concatenation that leaves a single part alone."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)
