"""Find video files, and draw some. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from f3prune.core.errors import InputError

SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
Item = TypeVar("Item")


def videos_under(root: Path, pattern: str = "**/*") -> list[Path]:
    """Every video file under ``root`` that fits the glob, sorted.

    Raises:
        InputError: no such directory, or no video in it.
    """
    if not root.is_dir():
        raise InputError(f"there is no directory {root}: give the directory that holds the videos")
    found = sorted(path for path in root.glob(pattern) if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"{root} holds no videos: expected files that end in {', '.join(sorted(SUFFIXES))}")
    return found


def draw(items: Sequence[Item], samples: int | None, seed: int, root: Path) -> list[Item]:
    """``samples`` of the items without repetition, uniformly, in their order; all for None.

    Raises:
        InputError: fewer items than that, or fewer than one sample.
    """
    if samples is None:
        return list(items)
    if not 1 <= samples <= len(items):
        raise InputError(f"cannot draw {samples} videos of {len(items)} in {root}: give 1 to {len(items)} samples")
    chosen = np.random.default_rng(seed).choice(len(items), size=samples, replace=False)
    return [items[index] for index in sorted(chosen)]
