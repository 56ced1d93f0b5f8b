"""Refit: generations of the dense model in, output projections for a pruned one out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune import calibration
from f3prune.calibration import Masks, Refit, StagedDenoiser, prune_denoiser
from f3prune.calibration.refitting import NothingToRefit, passes
from f3prune.core.errors import ArtifactError
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.pipelines.loading import load_denoiser
from f3prune.steps._state import PACKAGES, RunState

FILE, FOLDER, MASKS = "refit.safetensors", "refit", "masks.json"


def refitted(state: RunState, masks: Masks, generations: int, reporter: Reporter = SILENT) -> Masks:
    """The masks with a refit, measured once and kept below the run.

    Args:
        state: of the run.
        masks: without a refit.
        generations: to refit on: the calibration's prompts in turn, with seeds of their own; 0 refits nothing.
        reporter: of progress.

    Raises:
        InputError: a model, unit or site that cannot be refitted; see ``f3prune.calibration.refit``.
    """
    if not generations or all(mask.untouched for stage in masks.stages for mask in stage.sites.values()):
        return masks

    def make(scratch: Path) -> dict[str, Any]:
        state.verified_pipeline_digest()
        loop = state.strategy.loop(state.source, state.settings, reporter)
        with reporter.task("refitting", total=loop.steps * generations * passes(masks)) as advance:

            def denoise() -> None:
                for index in range(generations):
                    # Calibration used the seeds before these.
                    loop.denoise(state.prompts[index % len(state.prompts)], len(state.prompts) + index, advance)

            found, fitted = calibration.refit(loop.denoiser, masks, denoise)
        fitted.save(scratch / FILE)
        (scratch / MASKS).write_text(found.to_json(), encoding="utf-8")
        return {"digest": fitted.digest}

    home = state.run.path / FOLDER / masks.digest[:12]
    home.mkdir(parents=True, exist_ok=True)
    run = RunDirectory.create(home)
    inputs = {"selected": masks.digest, "source": state.verified_source_digest()}
    with run.lock():
        recipe = Manifest("refit", inputs, {"generations": generations}, package_versions(*PACKAGES))
        run.perform(recipe, make, files=(FILE, MASKS))
    return Masks.from_json(run.content("refit", MASKS).decode())


def refitted_if_possible(state: RunState, masks: Masks, generations: int, reporter: Reporter = SILENT) -> Masks:
    """``refitted``, or the masks themselves where nothing is left to refit: mode auto may drop whole layers."""
    try:
        return refitted(state, masks, generations, reporter)
    except NothingToRefit:
        return masks


def refit_of(state: RunState, masks: Masks) -> Refit | None:
    """What ``refitted`` measured for these masks; ``None`` where they have no refit.

    Raises:
        ArtifactError: it is missing, damaged, or was made again with other results.
    """
    if not masks.refit:
        return None
    for home in sorted((state.run.path / FOLDER).glob("*/")):
        run = RunDirectory.open(home)
        # A refit of other masks that was refused or cut short leaves a folder without an entry.
        entry = run.manifest("refit")
        if entry is not None and entry.facts["digest"] == masks.refit:
            run.require("refit")
            return Refit.load(home / FILE)
    raise ArtifactError(f"the refit that {state.run.path / MASKS} names is not there: run `prune(...)` again")


def baked(state: RunState, masks: Masks, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The run's denoiser pruned with these masks and their refit, in memory; one that has stages where they do.

    Raises:
        ArtifactError: the model changed since it was calibrated, or the refit is not there.
    """
    digest, fitted = state.verified_source_digest(), refit_of(state, masks)
    stages = [
        prune_denoiser(load_denoiser(state.source, dtype, device), masks, stage, digest, fitted).to(device).eval()
        for stage in range(len(masks.stages))
    ]
    return stages[0] if len(stages) == 1 else StagedDenoiser(masks, stages)
