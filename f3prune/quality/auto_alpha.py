"""The largest pruning ratio within a budget of quality, by bisection over the number of pruned units."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from f3prune.bench.contest.sweep import masks_key
from f3prune.calibration import Calibration, PruneConfig
from f3prune.calibration.score_table import units
from f3prune.calibration.scores import attention_scores
from f3prune.calibration.selection import unprotected
from f3prune.core.errors import InputError
from f3prune.core.progress import SILENT, Reporter
from f3prune.quality.compare import Measured, compare
from f3prune.quality.judging import JudgeOptions, Judging
from f3prune.quality.metrics import INFO
from f3prune.quality.variants import Variant
from f3prune.steps._state import RunState
from f3prune.steps.calibrate import AAS
from f3prune.steps.scores import masks_of

_BUDGET = re.compile(r"\s*(\w+)\s*(<=|>=)\s*([+-]?)(\d+(?:\.\d+)?)(%?)\s*")


@dataclass(frozen=True)
class Budget:
    """What quality may cost, e.g. ``fvd<=+0%``, ``psnr>=30``, ``prompt_digit>=-2%``.

    Attributes:
        metric: what is measured.
        relation: ``<=`` or ``>=``.
        amount: the bound.
        relative: the bound is a change against the dense model (written with a sign).
        percent: of the dense model's value.
    """

    metric: str
    relation: str
    amount: float
    relative: bool
    percent: bool

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``METRIC<=BOUND`` or ``METRIC>=BOUND``.

        Raises:
            InputError: not of that form, an unknown metric, or a bound that has no meaning for it.
        """
        found = _BUDGET.fullmatch(text)
        if found is None:
            raise InputError(
                f"`budget` is {text!r}, expected a metric and a bound: fvd<=+0% against the dense model, or psnr>=30"
            )
        metric, relation, sign, number, percent = found.groups()
        if metric not in INFO:
            raise InputError(f"`budget` names no metric {metric!r}, expected one of {', '.join(INFO)}")
        if INFO[metric].kind == "paired" and sign:
            raise InputError(f"`budget` {text}: {metric} compares with the dense model already: leave the sign out")
        if percent and not sign:
            raise InputError(f"`budget` {text}: a share needs a sign, {metric}{relation}+{number}% or -{number}%")
        amount = -float(number) if sign == "-" else float(number)
        return cls(metric, relation, amount, bool(sign), bool(percent))

    def holds(self, dense: float | None, pruned: float) -> bool:
        """Whether the pruned model's value is within the budget."""
        bound = self.amount
        if self.relative and dense is not None:
            bound = dense + (abs(dense) * self.amount / 100 if self.percent else self.amount)
        return pruned <= bound if self.relation == "<=" else pruned >= bound


@dataclass(frozen=True)
class Trial:
    """One ratio that was tried: its metric (dense is None for metrics against dense), and whether it was kept."""

    alpha: float
    dense: float | None
    pruned: float
    within: bool


def auto_alpha(
    state: RunState,
    config: PruneConfig,
    budget: Budget,
    options: JudgeOptions,
    reporter: Reporter = SILENT,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> PruneConfig:
    """The configuration with the largest ratio that keeps the budget; ratio 0 if none does.

    Quality is taken to fall as the ratio grows: what bisection skips is not measured. Values are those of the samples,
    without a margin for chance.

    Raises:
        InputError: the metric cannot be measured here.
    """
    if options.metrics is None:
        options = replace(options, metrics=(budget.metric,))
    judging = Judging(state, options, reporter)
    found = Calibration.load(state.run.path / AAS)
    candidates = unprotected(list(found.sites), config.protect)
    count = len(units(attention_scores(found, config.granularity), config.aggregate, candidates))
    dense = judging.dense("torch")
    known: dict[str, Trial] = {}

    def within(number: int) -> bool:
        # A ratio in the middle of those that prune so many units: no rounding can change the number.
        alpha = min(1.0, round((number + 0.5) / count, 6)) if number < count else 1.0
        masks = masks_of(state, replace(config, alpha=alpha), reporter)
        key = masks_key(masks)
        if key not in known:
            measured = judging.pruned(Variant(masks), keep=False)
            known[key] = _trial(alpha, budget, dense, measured, judging)
            on_trial(known[key])
        return known[key].within

    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        if within(middle):
            low = middle
        else:
            high = middle - 1
    return replace(config, alpha=1.0 if low == count else round((low + 0.5) / count, 6) if low else 0.0)


def _trial(alpha: float, budget: Budget, dense: Measured, measured: Measured, judging: Judging) -> Trial:
    real = judging.real() if INFO[budget.metric].kind == "distance" else None
    result: dict[str, Any] = compare(dense, measured, real, resamples=100)
    value = result["pruned"][budget.metric]["value"]
    before = result["dense"].get(budget.metric, {"value": None})["value"]
    return Trial(alpha, before, value, budget.holds(before, value))
