"""Spoils clips a little, so that a network must see through noise, blur and faintness, and its features keep them."""

from __future__ import annotations

import torch

NOISE = 0.15
"""Largest standard deviation of the noise, in shares of the brightness range."""
BLUR = 1.0
"""Largest standard deviation of the blur, in pixels."""
FAINT = 0.6
"""Least factor of the brightness."""


def blur(clips: torch.Tensor, deviation: float) -> torch.Tensor:
    """Clips `b f h w` after a Gaussian blur of each frame; `deviation` in pixels."""
    if deviation <= 0.0:
        return clips
    reach = max(1, round(3 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation).square())
    kernel = kernel / kernel.sum()
    frames = clips.flatten(0, 1)[:, None]
    frames = torch.nn.functional.conv2d(frames, kernel[None, None, :, None], padding=(reach, 0))
    frames = torch.nn.functional.conv2d(frames, kernel[None, None, None, :], padding=(0, reach))
    return frames[:, 0].unflatten(0, clips.shape[:2])


def augment(clips: torch.Tensor) -> torch.Tensor:
    """Clips `b f h w` (float32 in [0, 1]), each with its own noise and brightness; half of the batches are blurred."""
    size = (len(clips), 1, 1, 1)
    if torch.rand(()) < 0.5:
        clips = blur(clips, float(torch.rand(())) * BLUR)
    brightness = FAINT + (1.0 - FAINT) * torch.rand(size)
    return (clips * brightness + NOISE * torch.rand(size) * torch.randn_like(clips)).clamp(0.0, 1.0)
