"""Upsampling in UNets without a look at the batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.upsampling import Upsample2D


@contextlib.contextmanager
def upsample_any_batch() -> Iterator[None]:
    """``Upsample2D`` does not ask how many images there are.

    Why:
        the original calls ``contiguous()`` from 64 images or 2³¹ numbers on, against faults of old CUDA kernels.
        Tracing makes that a limit of the graph: 16 frames would allow a batch of 3, and ``torch.export`` refuses the
        rest.

    Requires:
        nothing; upsamplers with transposed convolutions are left to the original, which asks nothing there.

    Ensures:
        the same values: ``contiguous()`` changes the layout in memory alone.
    """
    original = Upsample2D.forward

    def forward(
        self: Upsample2D, hidden_states: torch.Tensor, output_size: Any = None, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        if self.use_conv_transpose:
            result: torch.Tensor = original(self, hidden_states, output_size, *args, **kwargs)
            return result
        if self.norm is not None:
            hidden_states = self.norm(hidden_states.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.interpolate:
            scale = 2.0 if output_size is None else None
            hidden_states = F.interpolate(hidden_states, size=output_size, scale_factor=scale, mode="nearest")
        if self.use_conv:
            hidden_states = (self.conv if self.name == "conv" else self.Conv2d_0)(hidden_states)
        return hidden_states

    Upsample2D.forward = forward
    try:
        yield
    finally:
        Upsample2D.forward = original
