"""Evaluate: many videos of the dense and the pruned model, metric by metric, with intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from f3prune.bench.speed import ensure_dense_engine
from f3prune.core.errors import ArtifactError
from f3prune.core.json_values import json_values, parse_json
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.quality.compare import compare
from f3prune.quality.judging import JudgeOptions, Judging
from f3prune.quality.variants import Runner, Variant
from f3prune.steps._state import PACKAGES, RunState, masks_of_run
from f3prune.steps.build import STEP as BUILD_STEP

FILE = "evaluation.json"
VERSION = 1


def evaluate(run: RunDirectory, options: JudgeOptions, reporter: Reporter = SILENT) -> tuple[dict[str, Any], bool]:
    """Generate with both models, measure, compare; writes ``evaluation.json``. Goes on where it was interrupted.

    Returns:
        The content of ``evaluation.json``, and whether it was made now.

    Raises:
        ArtifactError: the run is not pruned, or a file was altered.
        InputError: a dataset, metric or network that cannot be used.
    """
    state = RunState.of(run)
    chosen = run.require("masks")
    masks = masks_of_run(run)
    runner = options.runner or _best_runner(run)
    inputs = {"calibrate": state.calibration.digest, "masks": chosen.digest}
    if runner == "engine":
        ensure_dense_engine(run, reporter)
        for step in (BUILD_STEP["pruned"], BUILD_STEP["dense"]):
            inputs[step] = run.require_current(step).digest
    judging = Judging(state, options, reporter)
    recipe = Manifest(
        "evaluate", inputs, {**json_values(options), "runner": runner, "key": judging.key}, package_versions(*PACKAGES)
    )

    def make(scratch: Path) -> dict[str, Any]:
        dense = judging.dense(runner)
        pruned = judging.pruned(Variant(masks, runner))
        found = compare(dense, pruned, judging.real(), resamples=options.resamples)
        data = {"version": VERSION, "dataset": judging.dataset_facts(), "runner": runner, **found}
        (scratch / FILE).write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return {"samples": len(judging.samples), "metrics": list(judging.names)}

    _, made = run.perform(recipe, make, files=(FILE,))
    loaded: dict[str, Any] = parse_json(run.content("evaluate", FILE))
    return loaded, made


def _best_runner(run: RunDirectory) -> Runner:
    """The engine where one is built and current."""
    try:
        run.require_current(BUILD_STEP["pruned"])
    except ArtifactError:
        return "torch"
    return "engine"
