"""Sparse-causal attention: every frame looks at the first frame and at the one before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention


class SparseCausalAttention(Attention):
    """Spatial attention whose keys and values come from frames 0 and i-1 (Tune-A-Video, arXiv 2212.11565, §3.2).

    Frame 0 attends to itself, frame 1 to frame 0; no later frame attends to itself. Weights and their names are those
    of the image model's self-attention.
    """

    def __init__(self, channels: int, heads: int, upcast_attention: bool = False) -> None:
        super().__init__(channels, heads=heads, dim_head=channels // heads, upcast_attention=upcast_attention)

    def forward(self, hidden_states: torch.Tensor, frames: int) -> torch.Tensor:  # type: ignore[override]
        """``(b f) n c -> (b f) n c``.

        Args:
            hidden_states: normalised tokens, frames innermost in the batch, floating point.
            frames: F.
        """
        query = self._split(self.to_q(hidden_states))
        # Projected once per frame and gathered afterwards: half the work of projecting what was gathered.
        key = self._split(sparse_causal(self.to_k(hidden_states), frames))
        value = self._split(sparse_causal(self.to_v(hidden_states), frames))
        attended = F.scaled_dot_product_attention(query, key, value)
        output: torch.Tensor = self.to_out[0](attended.transpose(1, 2).flatten(2))
        return output

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        """``b n (h d) -> b h n d``."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def sparse_causal(tokens: torch.Tensor, frames: int) -> torch.Tensor:
    """For every frame the tokens of frame 0, then those of the frame before it: ``(b f) n c -> (b f) 2n c``."""
    video = tokens.unflatten(0, (-1, frames))
    first = video[:, :1]
    former = torch.cat([first, video[:, :-1]], dim=1)
    return torch.cat([first.expand_as(former), former], dim=2).flatten(0, 1)
