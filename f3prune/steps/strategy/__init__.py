"""How a model generates, and what the steps do about it: a denoiser called in a loop, or tokens drawn one by one."""

from __future__ import annotations

from f3prune.families import Family
from f3prune.steps.strategy._base import CalibrationJob, GenerationStrategy, Measured
from f3prune.steps.strategy.autoregressive import AutoregressiveStrategy
from f3prune.steps.strategy.denoising import DenoisingStrategy

__all__ = ["CalibrationJob", "GenerationStrategy", "Measured", "strategy_of"]


def strategy_of(family: Family) -> GenerationStrategy:
    """The strategy of all models of ``family``."""
    return AutoregressiveStrategy() if family.autoregressive else DenoisingStrategy()
