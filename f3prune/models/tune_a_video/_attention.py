"""Sparse-causal attention: every frame looks at the first frame and at the one before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention


class SparseCausalAttention(Attention):
    """Spatial attention whose keys and values come from frames 0 and i-1 (Tune-A-Video, arXiv 2212.11565, §3.2).

    Frame 0 attends to itself, frame 1 to frame 0; no later frame attends to itself. Weights and their names are those
    of the image model's self-attention.

    Attributes:
        local_heads: so many of the last heads attend to their own frame instead, as pruning leaves them.
    """

    local_heads = 0

    def __init__(self, channels: int, heads: int, upcast_attention: bool = False) -> None:
        super().__init__(channels, heads=heads, dim_head=channels // heads, upcast_attention=upcast_attention)

    def forward(self, hidden_states: torch.Tensor, frames: int) -> torch.Tensor:  # type: ignore[override]
        """``(b f) n c -> (b f) n c``.

        Args:
            hidden_states: normalised tokens, frames innermost in the batch, floating point.
            frames: F.
        """
        query = self._split(self.to_q(hidden_states), self.heads)
        key, value = self.to_k(hidden_states), self.to_v(hidden_states)
        sparse = self.heads - self.local_heads
        channels = sparse * query.shape[-1]
        parts = []
        if sparse:
            # Projected once per frame and gathered afterwards: half the work of projecting what was gathered.
            keys, values = (self._split(sparse_causal(x[..., :channels], frames), sparse) for x in (key, value))
            parts.append(F.scaled_dot_product_attention(query[:, :sparse], keys, values))
        if self.local_heads:
            keys, values = (self._split(x[..., channels:], self.local_heads) for x in (key, value))
            parts.append(F.scaled_dot_product_attention(query[:, sparse:], keys, values))
        attended = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        output: torch.Tensor = self.to_out[0](attended.transpose(1, 2).flatten(2))
        return output

    def _split(self, tokens: torch.Tensor, heads: int) -> torch.Tensor:
        """``b n (h d) -> b h n d``."""
        return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def sparse_causal(tokens: torch.Tensor, frames: int) -> torch.Tensor:
    """For every frame the tokens of frame 0, then those of the frame before it: ``(b f) n c -> (b f) 2n c``."""
    video = tokens.unflatten(0, (-1, frames))
    first = video[:, :1]
    former = torch.cat([first, video[:, :-1]], dim=1)
    return torch.cat([first.expand_as(former), former], dim=2).flatten(0, 1)
