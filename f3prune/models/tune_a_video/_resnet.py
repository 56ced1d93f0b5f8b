"""ResNet block and resampling of a video by two-dimensional convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from f3prune.models.tune_a_video._frames import fold, unfold


class VideoConv(nn.Conv2d):
    """A two-dimensional convolution of every frame by itself, with the image model's weights."""

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """``b c f h w -> b c' f h' w'``."""
        return unfold(super().forward(fold(video)), video.shape[2])


class VideoResnet(nn.Module):
    """Norm, SiLU, convolution, twice, with the time embedding in between and a shortcut around.

    Both group norms take their statistics over all frames of a video together.
    """

    def __init__(
        self, channels: int, out_channels: int, time_channels: int, groups: int, eps: float, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = scale
        self.norm1 = nn.GroupNorm(groups, channels, eps=eps)
        self.conv1 = VideoConv(channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = VideoConv(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = VideoConv(channels, out_channels, 1) if channels != out_channels else None

    def forward(self, video: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """``b c f h w -> b c' f h w``; ``time`` is ``b e``."""
        hidden = self.conv1(F.silu(self.norm1(video)))
        hidden = hidden + self.time_emb_proj(F.silu(time))[:, :, None, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if self.conv_shortcut is not None:
            video = self.conv_shortcut(video)
        output: torch.Tensor = (video + hidden) / self.scale
        return output


class Downsample(nn.Module):
    """Halve height and width."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = VideoConv(channels, channels, 3, stride=2, padding=padding)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """``b c f h w -> b c f h' w'``."""
        # Without padding of its own the convolution gets a row and a column at the far side, as in the image model.
        output: torch.Tensor = self.conv(F.pad(video, (0, 1, 0, 1)) if self.padding == 0 else video)
        return output


class Upsample(nn.Module):
    """Repeat pixels up to a given height and width, then convolve; frames stay as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = VideoConv(channels, channels, 3, padding=1)

    def forward(self, video: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """``b c f h w -> b c f h' w'`` with ``(h', w') = size``."""
        frames = video.shape[2]
        larger = F.interpolate(fold(video), size=size, mode="nearest")
        output: torch.Tensor = self.conv(unfold(larger, frames))
        return output
