"""The transformer between ResNet blocks: sparse-causal, text and temporal attention around a feed-forward."""

from __future__ import annotations

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import nn

from f3prune.models.tune_a_video._attention import SparseCausalAttention
from f3prune.models.tune_a_video._frames import fold, unfold


class VideoTransformerBlock(nn.Module):
    """Four residual branches in this order: ``attn1`` over frames 0 and i-1, ``attn2`` to text, ``ff``, ``attn_temp``.

    ``attn_temp`` relates the frames of one pixel, without positions and without a mask.
    """

    def __init__(self, channels: int, heads: int, text_channels: int, upcast_attention: bool = False) -> None:
        super().__init__()
        shared = {"heads": heads, "dim_head": channels // heads, "upcast_attention": upcast_attention}
        self.attn1 = SparseCausalAttention(channels, heads, upcast_attention)
        self.norm1 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, cross_attention_dim=text_channels, **shared)
        self.norm2 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.norm3 = nn.LayerNorm(channels)
        self.attn_temp = Attention(channels, **shared)
        self.norm_temp = nn.LayerNorm(channels)

    def forward(self, tokens: torch.Tensor, text: torch.Tensor, frames: int) -> torch.Tensor:
        """``(b f) n c -> (b f) n c``; ``text`` is ``(b f) t d``."""
        tokens = tokens + self.attn1(self.norm1(tokens), frames)
        tokens = tokens + self.attn2(self.norm2(tokens), encoder_hidden_states=text)
        tokens = tokens + self.ff(self.norm3(tokens))
        # (b f) n c -> (b n) f c and back.
        pixels = tokens.shape[1]
        over_time = tokens.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)
        over_time = over_time + self.attn_temp(self.norm_temp(over_time))
        return over_time.unflatten(0, (-1, pixels)).transpose(1, 2).flatten(0, 1)


class VideoTransformer(nn.Module):
    """Group norm of every frame by itself, projection, one block, projection back, residual."""

    def __init__(
        self, channels: int, heads: int, text_channels: int, groups: int, linear: bool, upcast_attention: bool = False
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in: nn.Module = _projection(channels, linear)
        self.transformer_blocks = nn.ModuleList(
            [VideoTransformerBlock(channels, heads, text_channels, upcast_attention)]
        )
        self.proj_out: nn.Module = _projection(channels, linear)

    def forward(self, video: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """``b c f h w -> b c f h w``; ``text`` is ``b t d``."""
        frames, height = video.shape[2], video.shape[3]
        images = fold(video)
        # Every frame reads its video's text: b t d -> (b f) t d.
        text = text.unsqueeze(1).expand(-1, frames, -1, -1).flatten(0, 1)
        tokens = self.norm(images)
        tokens = self.proj_in(_to_tokens(tokens)) if self.linear else _to_tokens(self.proj_in(tokens))
        for block in self.transformer_blocks:
            tokens = block(tokens, text, frames)
        images = images + (
            _to_images(self.proj_out(tokens), height) if self.linear else self.proj_out(_to_images(tokens, height))
        )
        return unfold(images, frames)


def _projection(channels: int, linear: bool) -> nn.Module:
    return nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)


def _to_tokens(images: torch.Tensor) -> torch.Tensor:
    """``b c h w -> b (h w) c``."""
    return images.flatten(2).transpose(1, 2)


def _to_images(tokens: torch.Tensor, height: int) -> torch.Tensor:
    """``b (h w) c -> b c h w``."""
    return tokens.transpose(1, 2).unflatten(2, (height, -1))
