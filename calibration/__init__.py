"""Prompts in, smaller denoiser out: frame mass → Aggregate Attention Score → masks → baked weights."""

from __future__ import annotations

from calibration.aas import head_scores, pair_scores
from calibration.bake import PruningRecord, prune_denoiser, pruning_of
from calibration.calibration_file import Calibration
from calibration.masks import Masks, SiteMask, Stage
from calibration.measure import FrameMassRecorder, calibrate, denoise_synthetic
from calibration.pruned_model import load_pruned, save_pruned
from calibration.reference import masked_reference
from calibration.score_table import ScoreTable
from calibration.scores import count_trials, count_units, greedy, leave_one_out, magnitude_scores
from calibration.selection import PruneConfig, default_score, select_masks, stage_ranges, suits_pairs, unprotected
from calibration.staged import StagedDenoiser

__all__ = [
    "Calibration",
    "FrameMassRecorder",
    "Masks",
    "PruneConfig",
    "PruningRecord",
    "ScoreTable",
    "SiteMask",
    "Stage",
    "StagedDenoiser",
    "calibrate",
    "count_trials",
    "count_units",
    "default_score",
    "denoise_synthetic",
    "greedy",
    "head_scores",
    "leave_one_out",
    "load_pruned",
    "magnitude_scores",
    "masked_reference",
    "pair_scores",
    "prune_denoiser",
    "pruning_of",
    "save_pruned",
    "select_masks",
    "stage_ranges",
    "suits_pairs",
    "unprotected",
]
