"""``window``: a query attends to its own frame, to the frames beside it, and to text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from f3prune.calibration.attention_hook import AttentionCall
from f3prune.calibration.bake.near import attend_near
from f3prune.calibration.replacements._masks import attend_where, frames_of
from f3prune.calibration.replacements._registry import Replacement, register
from f3prune.core.errors import InputError
from f3prune.families import Family, Layout, TokenGrid


@register("window")
@dataclass(frozen=True)
class Window(Replacement):
    """Text queries attend to everything, as in the dense model.

    Attributes:
        window: frames seen on each side, at least 1.
    """

    title: ClassVar[str] = "its own frame, those beside it, and text"
    offered: ClassVar[tuple[str, ...]] = ("window:1",)
    layouts: ClassVar[tuple[Layout, ...]] = ("spatiotemporal",)
    window: int = 1

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InputError(
                f"`window` is {self.window}, expected at least 1 frame on each side: `mode='local'` has none"
            )

    def attend(self, call: AttentionCall) -> torch.Tensor:
        """See ``Replacement``."""
        return attend_near(call, self.window)

    def reference(self, call: AttentionCall) -> torch.Tensor:
        """See ``Replacement``."""
        asks, answers = frames_of(call)
        near = (asks - answers).abs() <= self.window
        return attend_where(call, near | (answers == call.frames) | (asks == call.frames))

    def refusal(self, layout: Layout, family: Family, frames: int, grid: TokenGrid | None) -> str | None:
        """A window over the whole clip is dense attention."""
        if (found := super().refusal(layout, family, frames, grid)) is not None:
            return found
        if self.window >= frames - 1:
            return f"`window` is {self.window}, which spans all {frames} frames: use at most {frames - 2}"
        return None
