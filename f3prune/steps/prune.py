"""Prune: frame mass in, masks and a smaller denoiser out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from f3prune import calibration
from f3prune.calibration import Calibration, Masks, PruneConfig
from f3prune.core.errors import InputError
from f3prune.core.json_values import json_values
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.pipelines.loading import load_denoiser, stored_dtype
from f3prune.steps._state import PACKAGES, RunState, masks_of_run, stage_directories
from f3prune.steps.calibrate import AAS
from f3prune.steps.refit import refit_of
from f3prune.steps.scores import masks_of

MASKS = "masks.json"


def prune(run: RunDirectory, config: PruneConfig, reporter: Reporter = SILENT) -> tuple[Manifest, bool]:
    """Choose what goes and bake it into the weights; writes ``masks.json`` and ``pruned/``.

    Returns:
        The manifest entry of ``pruned``, and whether anything was made now.

    Raises:
        ArtifactError: the calibration is missing or altered, or the model changed since.
        InputError: the configuration does not fit the calibration.
        UnknownSiteError: ``protect`` matches no site.
    """
    state = RunState.of(run)
    if config.granularity == "frame-pair" and not state.strategy.frame_pairs:
        raise InputError(
            f"{state.family.title} generates frame after frame and cannot be pruned by frame pairs: "
            f"use `granularity='layer'` or `'head'`"
        )
    source_digest = state.verified_source_digest()
    config = calibration.settled(config, Calibration.load(run.path / AAS))
    masks = masks_of(state, config, reporter)

    def choose(scratch: Path) -> dict[str, Any]:
        (scratch / MASKS).write_text(masks.to_json(), encoding="utf-8")
        return {"digest": masks.digest, "stages": len(masks.stages), **json_values(config)}

    options = json_values(config)
    chosen, new_masks = run.perform(
        Manifest("masks", {"calibrate": state.calibration.digest}, options, package_versions()), choose, files=(MASKS,)
    )

    def bake(scratch: Path) -> dict[str, Any]:
        masks = masks_of_run(run)
        refit = refit_of(state, masks)
        dtype = stored_dtype(state.source)
        after = []
        with reporter.task("pruning", total=len(masks.stages)) as advance:
            for stage, folder in enumerate(stage_directories(scratch, len(masks.stages))):
                denoiser = load_denoiser(state.source, dtype, lazy=True)
                calibration.prune_denoiser(denoiser, masks, stage, source_digest, refit)
                calibration.save_pruned(denoiser, folder)
                after.append(sum(parameter.numel() for parameter in denoiser.parameters()))
                advance()
        return {"parameters": after, "counts": counts(masks)}

    recipe = Manifest("pruned", {"masks": chosen.digest, "source": source_digest}, {}, package_versions(*PACKAGES))
    baked, new_weights = run.perform(recipe, bake)
    return baked, new_masks or new_weights


def counts(masks: Masks) -> list[dict[str, int]]:
    """What each stage prunes: sites, heads and frame pairs, gone and in all."""
    rows = []
    for stage in masks.stages:
        sites = stage.sites.values()
        rows.append(
            {
                "sites": len(stage.sites),
                "sites_pruned": sum(
                    len(m.pruned_heads) == m.heads
                    or (m.kept_pairs is not None and all(keys == (i,) for i, keys in enumerate(m.kept_pairs)))
                    for m in sites
                ),
                "sites_touched": sum(not m.untouched for m in sites),
                "heads_of_pruned_sites": sum(m.heads for m in sites if len(m.pruned_heads) == m.heads),
                "heads": sum(m.heads for m in sites),
                "heads_pruned": sum(len(m.pruned_heads) for m in sites),
                "pairs": sum(m.frames * (m.frames - 1) for m in sites),
                "pairs_pruned": sum(
                    m.frames**2 - sum(map(len, m.kept_pairs)) for m in sites if m.kept_pairs is not None
                ),
            }
        )
    return rows
