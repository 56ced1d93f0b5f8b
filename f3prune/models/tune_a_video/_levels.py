"""The levels of the UNet: down, middle and up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from f3prune.models.tune_a_video._resnet import Downsample, Upsample, VideoResnet
from f3prune.models.tune_a_video._transformer import VideoTransformer


@dataclass(frozen=True)
class Sizes:
    """What all levels share."""

    time_channels: int
    text_channels: int
    groups: int
    eps: float
    linear_projection: bool
    upcast_attention: bool

    def resnet(self, channels: int, out_channels: int, scale: float = 1.0) -> VideoResnet:
        """A ResNet block of these sizes."""
        return VideoResnet(channels, out_channels, self.time_channels, self.groups, self.eps, scale)

    def transformer(self, channels: int, heads: int) -> VideoTransformer:
        """A transformer of these sizes."""
        return VideoTransformer(
            channels, heads, self.text_channels, self.groups, self.linear_projection, self.upcast_attention
        )


class _Level(nn.Module):
    """ResNet blocks, each followed by a transformer where the level has any."""

    gradient_checkpointing = False
    _gradient_checkpointing_func: Any = None

    def __init__(self, resnets: Sequence[nn.Module], attentions: Sequence[nn.Module]) -> None:
        super().__init__()
        # Registered in this order, and not at all where there are none: the names of the published checkpoints.
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        self.resnets = nn.ModuleList(resnets)
        self.has_attention = bool(attentions)

    def _run(self, module: nn.Module, *args: torch.Tensor) -> torch.Tensor:
        """One module, recomputed in the backward pass where the model was told to save memory."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            recomputed: torch.Tensor = self._gradient_checkpointing_func(module, *args)
            return recomputed
        output: torch.Tensor = module(*args)
        return output

    def _layer(self, index: int, video: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        video = self._run(self.resnets[index], video, time)
        return self._run(self.attentions[index], video, text) if self.has_attention else video


class DownLevel(_Level):
    """Layers, then half the size, except at the deepest level."""

    def __init__(
        self, sizes: Sizes, channels: int, out_channels: int, layers: int, heads: int | None, padding: int | None
    ) -> None:
        super().__init__(
            [sizes.resnet(channels if i == 0 else out_channels, out_channels) for i in range(layers)],
            [] if heads is None else [sizes.transformer(out_channels, heads) for _ in range(layers)],
        )
        self.downsamplers = nn.ModuleList([] if padding is None else [Downsample(out_channels, padding)])

    def forward(self, video: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> list[torch.Tensor]:
        """``b c f h w`` in; every layer's output and the smaller video, in the order of execution."""
        outputs = []
        for index in range(len(self.resnets)):
            video = self._layer(index, video, time, text)
            outputs.append(video)
        for downsample in self.downsamplers:
            video = downsample(video)
            outputs.append(video)
        return outputs


class MiddleLevel(_Level):
    """ResNet block, transformer, ResNet block."""

    def __init__(self, sizes: Sizes, channels: int, heads: int, scale: float) -> None:
        super().__init__(
            [sizes.resnet(channels, channels, scale) for _ in range(2)], [sizes.transformer(channels, heads)]
        )

    def forward(self, video: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """``b c f h w -> b c f h w``."""
        return self._run(self.resnets[1], self._layer(0, video, time, text), time)


class UpLevel(_Level):
    """Layers that each take a skip tensor in, then the size of the next skip tensor, except at the last level."""

    def __init__(
        self,
        sizes: Sizes,
        channels: int,
        skip_channels: Sequence[int],
        out_channels: int,
        heads: int | None,
        upsample: bool,
    ) -> None:
        super().__init__(
            [
                sizes.resnet((channels if i == 0 else out_channels) + skip, out_channels)
                for i, skip in enumerate(skip_channels)
            ],
            [] if heads is None else [sizes.transformer(out_channels, heads) for _ in skip_channels],
        )
        self.upsamplers = nn.ModuleList([Upsample(out_channels)] if upsample else [])

    def forward(
        self, video: torch.Tensor, time: torch.Tensor, text: torch.Tensor, skips: list[torch.Tensor]
    ) -> torch.Tensor:
        """``b c f h w -> b c' f h' w'``; takes its skip tensors off the end of ``skips``."""
        for index in range(len(self.resnets)):
            video = self._layer(index, torch.cat([video, skips.pop()], dim=1), time, text)
        for upsample in self.upsamplers:
            video = upsample(video, (skips[-1].shape[3], skips[-1].shape[4]))
        return video
