"""From masks to a smaller denoiser."""

from __future__ import annotations

from f3prune.calibration.bake.prune import PruningRecord, prune_denoiser, pruning_of

__all__ = ["PruningRecord", "prune_denoiser", "pruning_of"]
