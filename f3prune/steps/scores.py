"""Scores: what units are ranked by, where that needs the model and not just the calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from f3prune.calibration import Calibration, Masks, PruneConfig, ScoreTable, select_masks
from f3prune.calibration.scores import Measurement, score_of
from f3prune.core.atomic_files import canonical_json, sha256_text
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.pipelines.loading import load_denoiser, pick_device, working_dtype
from f3prune.steps._state import PACKAGES, RunState
from f3prune.steps.calibrate import AAS

FILE, FOLDER = "scores.safetensors", "scores"


def masks_of(state: RunState, config: PruneConfig, reporter: Reporter = SILENT) -> Masks:
    """What ``config`` prunes in this run.

    Raises:
        ArtifactError: the calibration is missing or altered, or the model changed since.
        InputError: the configuration does not fit the calibration.
        UnknownSiteError: ``protect`` matches no site.
    """
    found = Calibration.load(state.run.path / AAS)
    if not score_of(config.score).needs_model:
        return select_masks(found, config)
    # Mistakes in the rest of the configuration are found before the model is loaded.
    select_masks(found, replace(config, score="aas"))
    return select_masks(found, config, score_table(state, found, config, reporter))


def score_table(state: RunState, found: Calibration, config: PruneConfig, reporter: Reporter = SILENT) -> ScoreTable:
    """The scores that need the model, measured once for every kind of them and kept below the run."""
    options: dict[str, Any] = {"score": config.score, "granularity": config.granularity}
    options |= score_of(config.score).depends_on(config)
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
    """The scores that need the model, on the run's recorded calls."""
    device = pick_device()
    dtype = working_dtype(state.source, device)

    @cache
    def denoiser() -> nn.Module:
        with reporter.task("loading the denoiser"):
            return load_denoiser(state.source, dtype, device)

    def calls() -> list[tuple[float, Mapping[str, Any]]]:
        extra = {} if state.family.autoregressive else {"return_dict": False}
        return [
            # CogVideo's calls are finished sequences, one per prompt, which all belong to its only timestep.
            (
                min(found.timesteps, key=lambda timestep: abs(timestep - call.timestep)),
                {**call.on(device, dtype), **extra},
            )
            for call in state.calls()
        ]

    denoiser()
    task = lambda title, total: reporter.task(title, total=total)  # noqa: E731
    return score_of(config.score).measure(Measurement(found, config, denoiser, calls, task))


def _folder(options: Mapping[str, Any]) -> str:
    """A name for every set of options; globs may hold what file names may not."""
    words = [str(value) for name, value in options.items() if name != "protect"]
    globs = options.get("protect")
    if globs:
        words.append(sha256_text(canonical_json(globs))[:12])
    return "-".join(words)
