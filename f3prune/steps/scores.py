"""Scores: what units are ranked by, where that needs the model and not just the calibration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune.calibration import Calibration, Masks, PruneConfig, ScoreTable, select_masks, settled
from f3prune.calibration.auto import Choices, Products, assign, candidates, count_pruned, everywhere
from f3prune.calibration.replacements import replacement_of
from f3prune.calibration.scores import Measurement, OutputError, score_of
from f3prune.calibration.selection import AUTO
from f3prune.core.atomic_files import canonical_json, sha256_text
from f3prune.core.json_values import from_json_values, json_values, parse_json
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.families import family_of
from f3prune.pipelines.loading import load_denoiser, pick_device, working_dtype
from f3prune.steps._state import PACKAGES, RunState
from f3prune.steps.calibrate import AAS
from f3prune.steps.last_word import video_psnr
from f3prune.steps.refit import refitted, refitted_if_possible

FILE, FOLDER = "scores.safetensors", "scores"
CHOICES_FILE = "choices.json"
CHOICES_FORMAT = 2


def masks_of(state: RunState, config: PruneConfig, reporter: Reporter = SILENT) -> Masks:
    """What ``config`` prunes in this run, and refits.

    Raises:
        ArtifactError: the calibration is missing or altered, or the model changed since.
        InputError: the configuration does not fit the calibration.
        UnknownSiteError: ``protect`` matches no site.
    """
    config = settled(config, Calibration.load(state.run.path / AAS))
    fit = refitted_if_possible if config.mode == AUTO else refitted
    return fit(state, _masks_of(state, config, reporter), config.refit, reporter)


def _masks_of(state: RunState, config: PruneConfig, reporter: Reporter) -> Masks:
    if config.mode == AUTO:
        return choices_of(state, config, reporter).masks
    found = Calibration.load(state.run.path / AAS)
    if not score_of(config.score).needs_model:
        return select_masks(found, config)
    # Mistakes in the rest of the configuration are found before the model is loaded.
    select_masks(found, replace(config, score="aas"))
    return select_masks(found, config, score_table(state, found, config, reporter))


def choices_of(state: RunState, config: PruneConfig, reporter: Reporter = SILENT) -> Choices:
    """What mode ``auto`` takes in this run, and what it chose from.

    Raises:
        ArtifactError: the calibration is missing or altered, or the model changed since.
        InputError: so much cannot be saved.
        UnknownSiteError: ``protect`` matches no site.
    """
    found = Calibration.load(state.run.path / AAS)
    specs = dict.fromkeys(option.spec for options in candidates(found, config).values() for option in options)
    # The format is among the options: a file of another one is not read, but made again.
    options = {**json_values(config), "candidates": list(specs), "format": CHOICES_FORMAT}
    inputs = {"calibrate": state.calibration.digest, "source": state.verified_source_digest()}

    def make(scratch: Path) -> dict[str, Any]:
        plain = replace(config, alpha=0.0, speedup=None, candidates=(), refit=0)
        tables = {spec: score_table(state, found, replace(plain, mode=spec), reporter) for spec in specs}
        device = pick_device()
        dtype = working_dtype(state.source, device)
        with reporter.task("loading the denoiser"):
            denoiser = load_denoiser(state.source, dtype, device)
        calls = recorded_calls(state, found, device, dtype)
        sites = [site for site in family_of(denoiser).find_sites(denoiser, "all") if site.name in found.sites]
        settings: Any = denoiser.config
        _, shape = calls[len(calls) // 2]

        def counted(spec: str | None) -> Products:
            return count_pruned(type(denoiser).__name__, settings, everywhere(found, spec), shape, sites)

        with reporter.task("counting products", total=len(specs) + 1) as advance:
            dense, pruned = counted(None), {}
            advance()
            for spec in specs:
                pruned[spec] = counted(spec)
                advance()
        error = OutputError(denoiser, found, calls, "layer", replacement_of("local"))

        def together(masks: Masks, bounds: tuple[float, float]) -> float:
            inside = [timestep for timestep in error.timesteps if bounds[1] <= timestep <= bounds[0]]
            nearest = min(error.timesteps, key=lambda timestep: abs(timestep - sum(bounds) / 2))
            return float(error.of(masks, inside or [nearest]).sum())

        # A token drawn otherwise changes all that follow: videos of models that draw tokens cannot be compared so.
        by_videos = state.strategy.has_steps and state.source.kind == "pipeline"
        videos = partial(video_psnr, state, refit=config.refit, reporter=reporter) if by_videos else None
        with reporter.task("trying the best together"):
            choices = assign(found, config, tables, dense, pruned, together, videos)
        (scratch / CHOICES_FILE).write_text(json.dumps(json_values(choices), indent=1) + "\n", encoding="utf-8")
        return {}

    (state.run.path / FOLDER).mkdir(exist_ok=True)
    home = RunDirectory.create(state.run.path / FOLDER / f"auto-{sha256_text(canonical_json(options))[:12]}")
    with home.lock():
        recipe = Manifest("scores", inputs, options, package_versions(*PACKAGES))
        home.perform(recipe, make, files=(CHOICES_FILE,))
    return from_json_values(Choices, parse_json(home.content("scores", CHOICES_FILE)))


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
        return recorded_calls(state, found, device, dtype)

    denoiser()
    task = lambda title, total: reporter.task(title, total=total)  # noqa: E731
    return score_of(config.score).measure(Measurement(found, config, denoiser, calls, task))


def recorded_calls(
    state: RunState, found: Calibration, device: torch.device, dtype: torch.dtype
) -> list[tuple[float, Mapping[str, Any]]]:
    """The run's recorded calls: a calibrated timestep and forward arguments, of each."""
    return [
        # CogVideo's calls are finished sequences, one per prompt, which all belong to its only timestep.
        (
            min(found.timesteps, key=lambda timestep: abs(timestep - call.timestep)),
            {**call.on(device, dtype), **state.strategy.forward_arguments},
        )
        for call in state.calls()
    ]


def _folder(options: Mapping[str, Any]) -> str:
    """A name for every set of options; globs may hold what file names may not."""
    words = [str(value) for name, value in options.items() if name != "protect"]
    globs = options.get("protect")
    if globs:
        words.append(sha256_text(canonical_json(globs))[:12])
    return "-".join(words)
