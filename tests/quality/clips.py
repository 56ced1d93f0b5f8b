"""Small videos whose motion is known."""

from __future__ import annotations

import cv2
import numpy as np


def texture(height=64, width=96, seed=0):
    """A smooth random picture ``h w 3``, float32 in [0, 1]."""
    noise = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2.0)
    low, high = blurred.min(), blurred.max()
    return ((blurred - low) / (high - low)).astype(np.float32)


def shifting(frames=5, step=2, height=48, width=64, seed=0):
    """A window that moves over a picture by ``step`` pixels a frame: a pan, ``f h w 3``."""
    wide = texture(height, width + abs(step) * frames, seed)
    return np.stack([wide[:, step * i : step * i + width] for i in range(frames)])


def noisy(video, amount=0.1, seed=0):
    """The video with noise of its own in each frame."""
    noise = np.random.default_rng(seed).normal(0.0, amount, video.shape)
    return np.clip(video + noise, 0.0, 1.0).astype(np.float32)
