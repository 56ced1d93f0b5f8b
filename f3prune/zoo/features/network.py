"""A small 3D convolutional network whose features say which digit a clip shows and how it moves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from f3prune.core.errors import InputError
from f3prune.zoo.digits.dataset import DIRECTIONS

FEATURES = 32
"""Width of the features."""
WIDTHS = (16, 32, 64)
CHUNK = 64
"""Clips that go through the network together."""
STILL = 5
"""Frames of the unmoving clip that a single image is shown as."""

Features = npt.NDArray[np.float64]


def _block(wide_in: int, wide_out: int, stride: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv3d(wide_in, wide_out, 3, stride=(1, stride, stride), padding=1, bias=False),
        torch.nn.BatchNorm3d(wide_out),
        torch.nn.SiLU(),
    )


class FeatureNetwork(torch.nn.Module):
    """Classifies clips by digit and direction; the layer before the classes gives the features.

    Three convolutions halve the rows and columns and keep the frames; means over frames, rows and columns follow, so
    that clips of any length fit. Directions are words of `DIRECTIONS`, in its order.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (1, *WIDTHS)
        blocks = [_block(wide_in, wide_out, 2) for wide_in, wide_out in zip(widths, WIDTHS, strict=False)]
        self.trunk = torch.nn.Sequential(*blocks, _block(WIDTHS[-1], WIDTHS[-1], 1))
        self.neck = torch.nn.Linear(WIDTHS[-1], FEATURES)
        self.digit = torch.nn.Linear(FEATURES, 10)
        self.direction = torch.nn.Linear(FEATURES, len(DIRECTIONS))

    def embed(self, brightness: torch.Tensor) -> torch.Tensor:
        """Features `b d` (float32) of clips `b f h w` (float32 in [0, 1])."""
        features: torch.Tensor = self.neck(self.trunk(brightness[:, None] * 2.0 - 1.0).mean(dim=(2, 3, 4)))
        return features

    def forward(self, brightness: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the digits `b 10` and of the directions `b 4` of clips `b f h w` (float32 in [0, 1])."""
        features = torch.nn.functional.silu(self.embed(brightness))
        return self.digit(features), self.direction(features)

    def features(self, videos: npt.NDArray[np.float32]) -> Features:
        """Features `b d` (float64) of clips `b f h w c` (float in [0, 1]).

        Raises:
            InputError: not five axes, no clip, or values outside [0, 1].
        """
        with torch.inference_mode():
            return np.concatenate([self.embed(chunk).numpy() for chunk in _chunks(videos)]).astype(np.float64)

    def frame_features(self, videos: npt.NDArray[np.float32]) -> Features:
        """Features `(b f) d` (float64) of the frames of clips `b f h w c`, each shown as a clip that does not move.

        Raises:
            InputError: as `features`.
        """
        check(videos)
        images = videos.reshape(-1, 1, *videos.shape[2:])
        with torch.inference_mode():
            chunks = [self.embed(chunk.expand(-1, STILL, -1, -1)).numpy() for chunk in _chunks(images)]
        return np.concatenate(chunks).astype(np.float64)

    def classify(self, videos: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Digits `b` and directions `b` (int64, places in `DIRECTIONS`) of clips `b f h w c` (float in [0, 1]).

        Raises:
            InputError: as `features`.
        """
        with torch.inference_mode():
            logits = [self(chunk) for chunk in _chunks(videos)]
        digits, directions = (torch.cat(parts).argmax(dim=1).numpy() for parts in zip(*logits, strict=True))
        return digits, directions


def check(videos: npt.NDArray[np.float32]) -> None:
    """Raises `InputError` unless `videos` are clips `b f h w c` in [0, 1]."""
    if videos.ndim != 5 or 0 in videos.shape:
        raise InputError(f"clips must have five axes (b f h w c) with something in each, not shape {videos.shape}")
    if not (videos.min() >= 0.0 and videos.max() <= 1.0):
        raise InputError("clips must have values between 0 and 1")


def _chunks(videos: npt.NDArray[np.float32]) -> Iterator[torch.Tensor]:
    check(videos)
    brightness = torch.from_numpy(videos.mean(axis=-1, dtype=np.float32))
    yield from brightness.split(CHUNK)
