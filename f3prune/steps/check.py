"""Check: what export cost against PyTorch, and what pruning cost against the dense model, each apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from f3prune.calibration import load_pruned
from f3prune.core.captured_calls import CapturedCall
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.core.tensors import torch_dtype
from f3prune.engines.check import CheckBounds, CheckReport, compare
from f3prune.families import denoiser_component
from f3prune.pipelines.loading import pick_device
from f3prune.steps._state import RunState
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.export import load_variant
from f3prune.steps.sessions import engine_denoiser, engine_pipeline, generate_frames

Reference = Literal["pruned", "dense"]
FILE = "check.json"


def check(
    run: RunDirectory,
    reference: Reference = "pruned",
    rel_l2: float | None = None,
    reporter: Reporter = SILENT,
    videos: bool = True,
) -> CheckReport:
    """Compare the engine with PyTorch on the denoiser calls that calibration recorded, and on a whole video.

    Args:
        run: built.
        reference: ``pruned`` asks whether the engine computes what the pruned model does; ``dense`` also measures how
            far the pruned model is from the dense one.
        rel_l2: bound of the relative L2 distance to the reference; None takes the dtype's for ``pruned``, none for
            ``dense``.
        reporter: of progress.
        videos: also let every denoiser generate the video of the first calibration prompt by itself, and compare
            those. A denoiser alone makes none.

    Returns:
        The report; ``report.require()`` raises ``CheckFailed``. It is kept in the run as ``check.json``.

    Raises:
        ArtifactError: an earlier step is missing, altered or stale.
        BackendError: the engine cannot run here.
    """
    asked = _Asked(reference, rel_l2, videos)
    state = RunState.of(run)
    built = run.require_current(BUILD_STEP["pruned"])
    recipe = _recipe(state, built, asked)
    run.forget("check")
    report, _ = _measure(state, built, recipe, asked, reporter)
    return report


def check_once(run: RunDirectory, reporter: Reporter = SILENT) -> tuple[CheckReport, bool]:
    """Like ``check`` against the dense model, unless the run holds the very same result."""
    asked = _Asked("dense", None, True)
    state = RunState.of(run)
    built = run.require_current(BUILD_STEP["pruned"])
    return _measure(state, built, _recipe(state, built, asked), asked, reporter)


@dataclass(frozen=True)
class _Asked:
    reference: Reference
    rel_l2: float | None
    videos: bool


def _recipe(state: RunState, built: Manifest, asked: _Asked) -> Manifest:
    inputs = {
        "calibrate": state.calibration.digest,
        "pruned": state.run.require_current("pruned").digest,
        BUILD_STEP["pruned"]: built.digest,
    }
    if asked.videos and not state.synthetic:
        inputs["pipeline"] = state.verified_pipeline_digest()
    return Manifest("check", inputs, asdict(asked), package_versions("torch", "diffusers"))


def _measure(
    state: RunState, built: Manifest, recipe: Manifest, asked: _Asked, reporter: Reporter
) -> tuple[CheckReport, bool]:
    def make(scratch: Path) -> dict[str, Any]:
        report = _compare(state, built, asked, reporter)
        (scratch / FILE).write_text(report.to_json(), encoding="utf-8")
        return {"passed": report.passed, "failures": list(report.failures)}

    _, made = state.run.perform(recipe, make, files=(FILE,))
    return CheckReport.read(state.run.path / FILE), made


def _compare(state: RunState, built: Manifest, asked: _Asked, reporter: Reporter) -> CheckReport:
    device = pick_device()
    calls = [CapturedCall(call.timestep, call.on(device, torch.float32)) for call in state.calls()]
    dtype = str(built.facts["dtype"])
    engine_name = f"engine ({built.facts['backend']} {dtype})"
    bounds = CheckBounds.for_export(dtype)
    against_dense = asked.reference == "dense"
    if not against_dense and asked.rel_l2 is not None:
        bounds = CheckBounds(rel_l2=asked.rel_l2)
    pruned = pruned_torch(state, device)
    dense: nn.Module | None = None
    if against_dense:
        state.verified_source_digest()
        dense = load_variant(state, "dense", 0, 1, device)
    videos = _free_running(state, pruned, dense, reporter) if asked.videos and not state.synthetic else {}
    strategy, outputs = state.strategy, state.family.outputs
    with reporter.task("checking", total=len(calls) * (2 if against_dense else 1)) as advance:

        def progress(done: int, of: int) -> None:
            del done, of
            advance()

        with engine_denoiser(state) as engine, torch.no_grad():
            names = ("pruned (PyTorch fp32)", engine_name)
            reference = strategy.comparable(pruned, state.source)
            export = compare(
                names, reference, engine, calls, bounds, _pair(videos, "pruned", "engine"), progress, outputs
            )
        if dense is None:
            return CheckReport(export)
        names = ("dense (PyTorch fp32)", "pruned (PyTorch fp32)")
        price = CheckBounds(rel_l2=asked.rel_l2)
        original = strategy.comparable(dense, state.source)
        pruning = compare(names, original, reference, calls, price, _pair(videos, "dense", "pruned"), progress, outputs)
        inputs = calls[len(calls) // 2].arguments
        couplings = strategy.couplings({"dense": dense, "pruned": pruned}, state.family, inputs)
        return CheckReport(export, pruning, couplings)


def _free_running(
    state: RunState, pruned: nn.Module, dense: nn.Module | None, reporter: Reporter
) -> dict[str, torch.Tensor]:
    """The video of the first calibration prompt by every denoiser, each on its own, ``f h w 3`` in [0, 1]."""
    prompt = state.prompts[0]
    found = {}
    with engine_pipeline(state) as pipeline:
        found["engine"] = generate_frames(pipeline, state, state.settings, prompt, "video of the engine", reporter)
        for name, denoiser in (("pruned", pruned), ("dense", dense)):
            if denoiser is not None:
                setattr(pipeline, denoiser_component(pipeline), denoiser)
                what = f"video of the {name} model in PyTorch"
                found[name] = generate_frames(pipeline, state, state.settings, prompt, what, reporter)
    return {name: torch.from_numpy(frames) for name, frames in found.items()}


def _pair(
    videos: Mapping[str, torch.Tensor], reference: str, candidate: str
) -> tuple[torch.Tensor, torch.Tensor] | None:
    return (videos[reference], videos[candidate]) if videos else None


def pruned_torch(state: RunState, device: torch.device, dtype: str = "fp32") -> nn.Module:
    """The pruned denoiser in PyTorch, called like the original; with stages, each call goes to its timestep's."""
    state.run.require("pruned")
    return load_pruned(state.run.directory("pruned"), torch_dtype(dtype)).to(device)
