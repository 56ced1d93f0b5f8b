"""Prompts in, smaller denoiser out: frame mass → Aggregate Attention Score → masks → baked weights."""

from __future__ import annotations

from calibration.aas import head_scores, pair_scores
from calibration.bake import PruningRecord, prune_denoiser, pruning_of
from calibration.calibration_file import Calibration
from calibration.masks import Masks, PruneConfig, SiteMask, Stage, select_masks
from calibration.measure import FrameMassRecorder, calibrate, denoise_synthetic
from calibration.pruned_model import load_pruned, save_pruned
from calibration.reference import masked_reference
from calibration.staged import StagedDenoiser

__all__ = [
    "Calibration",
    "FrameMassRecorder",
    "Masks",
    "PruneConfig",
    "PruningRecord",
    "SiteMask",
    "Stage",
    "StagedDenoiser",
    "calibrate",
    "denoise_synthetic",
    "head_scores",
    "load_pruned",
    "masked_reference",
    "pair_scores",
    "prune_denoiser",
    "pruning_of",
    "save_pruned",
    "select_masks",
]
