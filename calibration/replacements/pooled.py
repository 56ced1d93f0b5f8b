"""``pooled``: a query sees near frames whole, and every other frame in patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from f3prune.calibration.attention_hook import AttentionCall
from f3prune.calibration.bake.near import attend_near
from f3prune.calibration.replacements._masks import frames_of
from f3prune.calibration.replacements._registry import Replacement, register
from f3prune.core.errors import InputError
from f3prune.families import Family, Layout, TokenGrid


@register("pooled")
@dataclass(frozen=True)
class Pooled(Replacement):
    """Keys and values of far frames are averaged over patches of the token grid; a patch's score gets the log of the
    number of tokens it stands for, so that a patch of equal tokens weighs what they weighed. Patches at the border are
    cut off by it. Text queries attend to text and to the patches of every frame.

    Attributes:
        pool: height and width of a patch in tokens, at least 2.
        window: frames beside its own that a query sees whole, on each side.
    """

    title: ClassVar[str] = "its own frame and text, and other frames in patches"
    offered: ClassVar[tuple[str, ...]] = ("pooled:4:0", "pooled:4:1", "pooled:2:0", "pooled:2:1")
    compared: ClassVar[tuple[str, ...]] = ("pooled:2:1",)
    layouts: ClassVar[tuple[Layout, ...]] = ("spatiotemporal",)
    pool: int = 4
    window: int = 0

    def __post_init__(self) -> None:
        if self.pool < 2:
            raise InputError(f"`pool` is {self.pool}, expected patches of at least 2 × 2 tokens")
        if self.window < 0:
            raise InputError(f"`window` is {self.window}, expected 0 or more frames on each side")

    def attend(self, call: AttentionCall) -> torch.Tensor:
        """See ``Replacement``."""
        if (wrong := self._too_large(call.grid)) is not None:
            raise InputError(f"site {call.site.name}: {wrong}")
        return attend_near(call, self.window, self.pool)

    def reference(self, call: AttentionCall) -> torch.Tensor:
        """All keys and all patches side by side; what a query does not see has a score of minus infinity."""
        key, value, sizes = *(self._patches(call, tensor) for tensor in (call.key, call.value)), self._sizes(call)
        asks, answers = frames_of(call)
        words = asks == call.frames
        whole = (((asks - answers).abs() <= self.window) & ~words) | (answers == call.frames)
        owner = torch.arange(call.frames, device=call.key.device).repeat_interleave(sizes.numel())[None]
        far = ((asks - owner).abs() > self.window) | words
        seen = torch.cat([whole, far], dim=1)
        score = torch.cat([sizes.new_zeros(call.key.shape[2]), sizes.log().repeat(call.frames)])
        bias = score.expand(seen.shape).masked_fill(~seen, -torch.inf).to(call.query.dtype)
        if call.mask is not None:
            own = call.mask
            if own.dtype == torch.bool:
                own = torch.zeros(own.shape, dtype=bias.dtype, device=own.device).masked_fill(~own, -torch.inf)
            bias = bias + F.pad(own, (0, key.shape[2]))
        return F.scaled_dot_product_attention(
            call.query,
            torch.cat([call.key, key], dim=2),
            torch.cat([call.value, value], dim=2),
            attn_mask=bias,
            scale=call.scale,
        )

    def refusal(self, layout: Layout, family: Family, frames: int, grid: TokenGrid | None) -> str | None:
        """A patch is smaller than the grid, and some frame is far."""
        if (found := super().refusal(layout, family, frames, grid)) is not None:
            return found
        if self.window >= frames - 1:
            return f"`window` is {self.window}, which spans all {frames} frames: use at most {max(frames - 2, 0)}"
        return None if grid is None else self._too_large(grid)

    def _too_large(self, grid: TokenGrid) -> str | None:
        if self.pool <= max(grid.height, grid.width):
            return None
        side = max(grid.height, grid.width)
        return (
            f"`pool` is {self.pool}, larger than the {grid.height} × {grid.width} tokens of a frame: use at most {side}"
        )

    def _patches(self, call: AttentionCall, tensor: torch.Tensor) -> torch.Tensor:
        """``b h n d -> b h (f p) d``: means over patches."""
        grid = tensor[:, :, call.video].unflatten(2, (call.frames, call.grid.height, call.grid.width))
        images = grid.permute(0, 1, 2, 5, 3, 4).flatten(0, 2)
        means = F.avg_pool2d(images, self.pool, ceil_mode=True, count_include_pad=False)
        return means.unflatten(0, grid.shape[:3]).flatten(4).transpose(3, 4).flatten(2, 3)

    def _sizes(self, call: AttentionCall) -> torch.Tensor:
        """Tokens of every patch of a frame ``p``."""
        height, width = (
            torch.tensor([min(self.pool, side - at) for at in range(0, side, self.pool)], dtype=torch.float32)
            for side in (call.grid.height, call.grid.width)
        )
        return (height[:, None] * width).flatten().to(call.key.device)
