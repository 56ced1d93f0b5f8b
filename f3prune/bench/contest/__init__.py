"""The contest: every way of running a denoiser, compared by whole generations, quality beside time."""

from __future__ import annotations

from f3prune.bench.contest.contest import FILE, ContestEntry, ContestOptions, contest, point_of

__all__ = ["FILE", "ContestOptions", "ContestEntry", "contest", "point_of"]
