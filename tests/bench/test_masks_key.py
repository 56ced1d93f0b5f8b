"""Sets of masks are told apart by all that is baked."""

from __future__ import annotations

from f3prune.bench.contest.sweep import masks_key
from f3prune.calibration import PruneConfig, select_masks
from tests.subjects import subject_of


def test_masks_that_differ_in_what_stands_in_are_not_the_same() -> None:
    """An engine of another replacement, or of other options of it, must never be taken for this one's."""
    calibration = subject_of("cogvideox").calibration
    modes = ("local", "drop", "window", "pooled:2", "pooled:3", "pooled:2:1")
    keys = [masks_key(select_masks(calibration, PruneConfig(0.5, mode=mode, score="aas"))) for mode in modes]
    assert len(set(keys)) == len(modes)
    assert masks_key(select_masks(calibration, PruneConfig(0.0, mode="drop", score="aas"))) == "dense"
