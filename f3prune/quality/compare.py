"""Pruned against dense, metric by metric, with intervals. Imports no torch."""

from __future__ import annotations

from typing import Any

from f3prune.core.errors import InputError
from f3prune.core.json_values import json_values
from f3prune.quality.measured import Measured, measure
from f3prune.quality.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Difference,
    Estimate,
    difference,
    estimate,
    frechet_difference,
)

__all__ = ["Measured", "compare", "measure"]


def compare(
    dense: Measured,
    pruned: Measured,
    real: Measured | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """What pruning changed.

    Args:
        dense, pruned: of the same prompts and seeds, in one order. Metrics against dense are in ``pruned`` alone.
        real: features of real videos, which distances need; of any number.
        confidence: of all intervals, in (0, 1).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        JSON values::

            {"metrics": {name: {"title", "unit", "better", "kind"}},
             "dense": {name: {"value", "interval": [low, high] | null}}, "pruned": likewise,
             "difference": {name: {"value", "interval", "verdict": "better" | "worse" | "undecided"}},
             "confidence", "resamples"}

        A difference is pruned minus dense. Metrics against dense appear under "pruned" only. A verdict tells better
        from worse for the pruned model.

    Raises:
        InputError: other prompts or metrics in the two, no real features for a distance, or too few videos for one.
    """
    if dense.prompts != pruned.prompts:
        raise InputError(
            f"dense was measured on {len(dense.prompts)} prompts, pruned on {len(pruned.prompts)}, and they are not "
            "the same in one order: measure both on the same prompts"
        )
    for name in {**dense.info, **pruned.info}:
        one_sided = pruned if name in pruned.info else dense
        if one_sided.info[name].kind == "paired":
            if name in dense.info:
                raise InputError(
                    f"dense was measured with {name}, which compares with dense itself: measure without it"
                )
        elif not (name in dense.info and name in pruned.info):
            raise InputError(f"{name} was measured on one of dense and pruned only: measure both with the same metrics")
    result: dict[str, Any] = {"metrics": {}, "dense": {}, "pruned": {}, "difference": {}}
    for name, info in pruned.info.items():
        result["metrics"][name] = info.to_json()
        if info.kind == "paired":
            result["pruned"][name] = json_values(estimate(pruned.values[name], confidence, resamples, seed))
            continue
        if info.kind == "distance":
            target = _features_of(real, name)
            found: tuple[Estimate, Estimate, Difference] = frechet_difference(
                dense.features[name], pruned.features[name], target, confidence, resamples, seed
            )
        else:
            a, b = dense.values[name], pruned.values[name]
            found = (
                estimate(a, confidence, resamples, seed),
                estimate(b, confidence, resamples, seed),
                difference(a, b, info.better, confidence, resamples, seed),
            )
        for part, value in zip(("dense", "pruned", "difference"), found, strict=True):
            result[part][name] = json_values(value)
    return {**result, "confidence": confidence, "resamples": resamples}


def _features_of(real: Measured | None, name: str) -> Any:
    if real is None:
        raise InputError(f"{name} is a distance to real videos, and none were given: give real videos, or leave it out")
    if name not in real.features:
        raise InputError(f"the real videos were measured without {name}: measure them with it")
    return real.features[name]
