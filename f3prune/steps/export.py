"""Export: the pruned (or the dense) denoiser in, ONNX out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune import calibration
from f3prune.core.captured_calls import CapturedCall
from f3prune.core.json_values import json_values
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.core.tensors import torch_dtype
from f3prune.exporter import ExportConfig
from f3prune.pipelines.loading import load_denoiser
from f3prune.steps._state import RunState, Variant, masks_of_run, stage_directories

STEP: dict[Variant, str] = {"pruned": "onnx", "dense": "dense-onnx"}
PACKAGES = ("torch", "diffusers", "onnx", "onnxscript")


def export(
    run: RunDirectory,
    config: ExportConfig | None = None,
    variant: Variant = "pruned",
    reporter: Reporter = SILENT,
) -> tuple[Manifest, bool]:
    """Write ``onnx/`` (or ``dense/onnx/``), one graph per stage.

    Returns:
        The step's manifest entry, and whether it was made now.

    Raises:
        ArtifactError: an earlier step is missing, altered or stale.
        ExportError: the graph could not be exported, or disagrees with PyTorch.
    """
    state = RunState.of(run)
    inputs = {"calibrate": state.calibration.digest}
    if variant == "pruned":
        pruned = run.require("pruned")
        inputs["pruned"] = pruned.digest
        stages = len(pruned.facts["parameters"])
    else:
        inputs["source"] = state.verified_source_digest()
        stages = 1
    config = config or ExportConfig()
    if len(state.calibration.facts["text_lengths"]) > 1 and config.dynamic == ExportConfig().dynamic:
        # The pipeline cuts padding off: a graph for one length of prompt would fit few prompts.
        config = replace(config, dynamic=(*config.dynamic, "text"))
    recipe = Manifest(STEP[variant], inputs, json_values(config), package_versions(*PACKAGES))
    if (found := run.up_to_date(recipe)) is not None:
        return found, False

    def make(scratch: Path) -> dict[str, Any]:
        graphs: list[dict[str, Any]] = []
        calls = state.calls()
        with reporter.task(f"exporting the {variant} denoiser", total=stages) as advance:
            for stage, folder in enumerate(stage_directories(scratch, stages)):
                denoiser = load_variant(state, variant, stage, stages, lazy=state.strategy.lazy_export)
                folder.mkdir(exist_ok=True)
                chosen = calls_of_stage(state, calls, variant, stage)
                metadata = {"source_digest": state.calibration.inputs["source"]}
                graphs += state.strategy.export(denoiser, chosen, state.source, folder, config, metadata)
                advance()
        return {"dtype": config.dtype, "stages": stages, "graphs": graphs}

    return run.perform(recipe, make)


def load_variant(
    state: RunState,
    variant: Variant,
    stage: int,
    stages: int,
    device: torch.device | None = None,
    dtype: str = "fp32",
    lazy: bool = False,
) -> nn.Module:
    """The pruned denoiser of one stage, or the dense one; its files must have been verified."""
    if variant == "dense":
        return load_denoiser(state.source, torch_dtype(dtype), device, lazy)
    folder = stage_directories(state.run.directory("pruned"), stages)[stage]
    denoiser = calibration.load_pruned(folder, torch_dtype(dtype), lazy)
    return denoiser.to(device) if device is not None else denoiser


def calls_of_stage(state: RunState, calls: list[CapturedCall], variant: Variant, stage: int) -> list[CapturedCall]:
    """The recorded calls that a stage serves; all of them for the dense model, and never none."""
    if variant == "dense":
        return calls
    masks = masks_of_run(state.run)
    chosen = [call for call in calls if masks.stage_of(call.timestep) == stage]
    return chosen or calls[:1]
