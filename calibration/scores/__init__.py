"""What a unit is worth: the measures that pruning can rank units by, under one interface. The least goes first.

A score is a subclass of ``Score`` in a module of its own here, found by the module's name.
"""

from __future__ import annotations

from f3prune.calibration.scores._output_error import OutputError
from f3prune.calibration.scores._registry import Measurement, Score, name_of, names, register, score_of
from f3prune.calibration.scores.aas import attention_scores
from f3prune.calibration.scores.greedy import count_trials, greedy
from f3prune.calibration.scores.leave_one_out import count_units, leave_one_out
from f3prune.calibration.scores.magnitude import magnitude_scores
from f3prune.calibration.scores.random import random_scores
from f3prune.calibration.scores.reversed import reversed_scores

__all__ = [
    "Measurement",
    "OutputError",
    "Score",
    "attention_scores",
    "count_trials",
    "count_units",
    "greedy",
    "leave_one_out",
    "magnitude_scores",
    "name_of",
    "names",
    "random_scores",
    "register",
    "reversed_scores",
    "score_of",
]
