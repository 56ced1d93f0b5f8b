"""Who is faster at equal quality: every method against the fastest of ours that is at least as close to dense."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

CAP_DB = 60.0
"""Above this all are equal: the difference is below the rounding of 8-bit video and of fp16 latents."""

TIE_DB = 0.1
"""Two that differ by less are equally good: the same pruned model on two backends differs by its rounding."""


@dataclass(frozen=True)
class Point:
    """One contender in the plane of time and quality.

    Attributes:
        name: of the contender.
        seconds: of one generation's denoising.
        psnr: against dense, dB; None where nothing differs.
        own: runs on an engine of this package.
        pruned: computes with a pruned model.
    """

    name: str
    seconds: float
    psnr: float | None
    own: bool = False
    pruned: bool = False

    @property
    def quality(self) -> float:
        """PSNR, capped at ``CAP_DB``."""
        return CAP_DB if self.psnr is None else min(self.psnr, CAP_DB)


@dataclass(frozen=True)
class Match:
    """A contender and the fastest of ours that is at least as good, but for ``TIE_DB``.

    Attributes:
        other: the contender.
        own: ours; None where none of ours is as good.
    """

    other: Point
    own: Point | None

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is; None where there is none."""
        return None if self.own is None else self.other.seconds / self.own.seconds


def matches(points: Iterable[Point]) -> list[Match]:
    """Every contender that is not ours against ours at equal quality, in the given order.

    Raises:
        ValueError: a time that is no positive number, or a PSNR that is no number.
    """
    points = list(points)
    for point in points:
        if not (math.isfinite(point.seconds) and point.seconds > 0) or math.isnan(point.quality):
            raise ValueError(f"{point.name}: {point.seconds} s at {point.psnr} dB cannot be compared")
    found = []
    for other in points:
        if other.own:
            continue
        as_good = [own for own in points if own.own and own.quality >= other.quality - TIE_DB]
        found.append(Match(other, min(as_good, key=lambda own: own.seconds, default=None)))
    return found


def hardest(found: Iterable[Match]) -> Match | None:
    """The match that ours wins by least; one that ours cannot match at all is harder than any. None without others."""
    return min(found, key=lambda match: -1.0 if match.ratio is None else match.ratio, default=None)
