"""Refit: weights that make up for what pruned attention lost, in closed form and free at run time."""

from __future__ import annotations

from f3prune.calibration.refitting._dropped import drops_channel, frame_layer
from f3prune.calibration.refitting._equations import NothingToRefit
from f3prune.calibration.refitting._fit import RIDGE, passes, refit
from f3prune.calibration.refitting._refit import FORMAT, Refit

__all__ = ["FORMAT", "RIDGE", "NothingToRefit", "Refit", "drops_channel", "frame_layer", "passes", "refit"]
