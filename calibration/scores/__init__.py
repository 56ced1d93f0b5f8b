"""What a unit is worth: the measures that pruning can rank units by, under one interface. The least goes first."""

from __future__ import annotations

from f3prune.calibration.scores._attention import attention_scores, random_scores, reversed_scores
from f3prune.calibration.scores._greedy import count_trials, greedy
from f3prune.calibration.scores._leave_one_out import count_units, leave_one_out
from f3prune.calibration.scores._magnitude import magnitude_scores

__all__ = [
    "attention_scores",
    "count_trials",
    "count_units",
    "greedy",
    "leave_one_out",
    "magnitude_scores",
    "random_scores",
    "reversed_scores",
]
