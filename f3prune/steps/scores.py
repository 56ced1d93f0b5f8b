"""Scores: what units are ranked by, where that needs the model and not just the calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from f3prune.calibration import (
    Calibration,
    Masks,
    PruneConfig,
    ScoreTable,
    count_trials,
    count_units,
    greedy,
    leave_one_out,
    magnitude_scores,
    select_masks,
    stage_ranges,
    unprotected,
)
from f3prune.core.atomic_files import canonical_json, sha256_text
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.pipelines.loading import load_denoiser, pick_device, working_dtype
from f3prune.steps._state import PACKAGES, RunState
from f3prune.steps.calibrate import AAS

FILE, FOLDER = "scores.safetensors", "scores"
NEED_MODEL = ("leave-one-out", "greedy", "magnitude")


def masks_of(state: RunState, config: PruneConfig, reporter: Reporter = SILENT) -> Masks:
    """What ``config`` prunes in this run.

    Raises:
        ArtifactError: the calibration is missing or altered, or the model changed since.
        InputError: the configuration does not fit the calibration.
        UnknownSiteError: ``protect`` matches no site.
    """
    found = Calibration.load(state.run.path / AAS)
    if config.score not in NEED_MODEL:
        return select_masks(found, config)
    # Mistakes in the rest of the configuration are found before the model is loaded.
    select_masks(found, replace(config, score="aas"))
    return select_masks(found, config, score_table(state, found, config, reporter))


def score_table(state: RunState, found: Calibration, config: PruneConfig, reporter: Reporter = SILENT) -> ScoreTable:
    """The scores that need the model, measured once for every kind of them and kept below the run."""
    options: dict[str, Any] = {"score": config.score, "granularity": config.granularity}
    if config.score in ("leave-one-out", "greedy"):
        options["mode"] = config.mode
    if config.score == "greedy":
        # What goes first decides what goes next, so that everything that limits the choice belongs to the order.
        options |= {"aggregate": config.aggregate, "stages": config.stages, "protect": list(config.protect)}
    inputs = {"calibrate": state.calibration.digest, "source": state.verified_source_digest()}

    def make(scratch: Path) -> dict[str, Any]:
        measure(state, found, config, reporter).save(scratch / FILE)
        return options

    (state.run.path / FOLDER).mkdir(exist_ok=True)
    home = RunDirectory.create(state.run.path / FOLDER / _folder(options))
    with home.lock():
        home.perform(Manifest("scores", inputs, options, package_versions(*PACKAGES)), make, files=(FILE,))
    return ScoreTable.load(home.path / FILE)


def measure(state: RunState, found: Calibration, config: PruneConfig, reporter: Reporter = SILENT) -> ScoreTable:
    """The scores that need the model: weight magnitude, or what the output loses on the recorded calls."""
    device = pick_device()
    dtype = working_dtype(state.source, device)
    with reporter.task("loading the denoiser"):
        denoiser = load_denoiser(state.source, dtype, device)
    if config.score == "magnitude":
        return magnitude_scores(denoiser, found, config.granularity)
    extra = {} if state.family.cached else {"return_dict": False}
    calls = [
        # CogVideo's calls are finished sequences, one per prompt, which all belong to its only timestep.
        (min(found.timesteps, key=lambda timestep: abs(timestep - call.timestep)), {**call.on(device, dtype), **extra})
        for call in state.calls()
    ]
    if config.score == "leave-one-out":
        with reporter.task("leaving one out", total=count_units(found, config.granularity)) as advance:
            return leave_one_out(denoiser, found, calls, config.granularity, config.mode, advance)
    candidates = unprotected(list(found.sites), config.protect)
    stages = [timesteps for _, timesteps in stage_ranges(found, config.stages)]
    trials = count_trials(found, config.granularity, config.aggregate, candidates, len(stages))
    with reporter.task("pruning one after another", total=trials) as advance:
        return greedy(
            denoiser, found, calls, config.granularity, config.mode, config.aggregate, candidates, stages, advance
        )


def _folder(options: Mapping[str, Any]) -> str:
    """A name for every set of options; globs may hold what file names may not."""
    words = [str(value) for name, value in options.items() if name != "protect"]
    globs = options.get("protect")
    if globs:
        words.append(sha256_text(canonical_json(globs))[:12])
    return "-".join(words)
