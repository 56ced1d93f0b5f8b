"""Fold a video into a batch of frames and back: Tune-A-Video's convolutions and projections are two-dimensional."""

from __future__ import annotations

import torch


def fold(video: torch.Tensor) -> torch.Tensor:
    """``b c f h w -> (b f) c h w``, frames innermost."""
    return video.transpose(1, 2).flatten(0, 1)


def unfold(images: torch.Tensor, frames: int) -> torch.Tensor:
    """``(b f) c h w -> b c f h w``."""
    return images.unflatten(0, (-1, frames)).transpose(1, 2)
