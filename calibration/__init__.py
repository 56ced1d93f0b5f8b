"""Prompts in, smaller denoiser out: frame mass → Aggregate Attention Score → masks → baked weights."""

from __future__ import annotations

from f3prune.calibration.aas import head_scores, pair_scores
from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.masks import Masks, SiteMask, Stage
from f3prune.calibration.measure import FrameMassRecorder, calibrate, denoise_synthetic
from f3prune.calibration.prune import PruningRecord, prune_denoiser, pruning_of
from f3prune.calibration.pruned_model import load_pruned, save_pruned
from f3prune.calibration.reference import masked_reference
from f3prune.calibration.refitting import Refit, refit
from f3prune.calibration.score_table import ScoreTable
from f3prune.calibration.scores import count_trials, count_units, greedy, leave_one_out, magnitude_scores
from f3prune.calibration.selection import (
    PruneConfig,
    default_mode,
    default_score,
    rank_units,
    select_masks,
    settled,
    stage_ranges,
    suits_pairs,
    unprotected,
)
from f3prune.calibration.staged import StagedDenoiser
from f3prune.core.captured_calls import record_calls

__all__ = [
    "Calibration",
    "FrameMassRecorder",
    "Masks",
    "PruneConfig",
    "PruningRecord",
    "Refit",
    "ScoreTable",
    "SiteMask",
    "Stage",
    "StagedDenoiser",
    "calibrate",
    "count_trials",
    "count_units",
    "default_mode",
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
    "rank_units",
    "record_calls",
    "refit",
    "save_pruned",
    "select_masks",
    "settled",
    "stage_ranges",
    "suits_pairs",
    "unprotected",
]
