"""Check: what export cost against PyTorch, and what pruning cost against the dense model, each apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from calibration import Masks
from engines.check import CheckBounds, CheckReport, DenoiserCall, compare, coupling
from f3prune.families import family_of
from f3prune.loading import pick_device
from f3prune.manifest import Manifest, package_versions
from f3prune.progress import SILENT, Reporter
from f3prune.run_directory import RunDirectory
from f3prune.steps._state import RunState
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.export import load_variant, stage_of
from f3prune.steps.prune import MASKS
from f3prune.steps.sessions import engine_denoiser

Reference = Literal["pruned", "dense"]
FILE = "check.json"


def check(
    run: RunDirectory, reference: Reference = "pruned", rel_l2: float | None = None, reporter: Reporter = SILENT
) -> CheckReport:
    """Compare the engine with PyTorch on the denoiser calls that calibration recorded.

    Args:
        run: built.
        reference: ``pruned`` asks whether the engine computes what the pruned model does; ``dense`` also measures how
            far the pruned model is from the dense one.
        rel_l2: bound of the relative L2 distance to the reference; None takes the dtype's for ``pruned``, none for
            ``dense``.
        reporter: of progress.

    Returns:
        The report; ``report.require()`` raises ``CheckFailed``. It is kept in the run as ``check.json``.

    Raises:
        ArtifactError: an earlier step is missing, altered or stale.
        BackendError: the engine cannot run here.
    """
    state = RunState.of(run)
    built = run.require_current(BUILD_STEP["pruned"])
    recipe = _recipe(state, built, reference, rel_l2)
    run.forget("check")
    report, _ = _measure(state, built, recipe, reference, rel_l2, reporter)
    return report


def check_once(run: RunDirectory, reporter: Reporter = SILENT) -> tuple[CheckReport, bool]:
    """Like ``check`` against the dense model, unless the run holds the very same result."""
    state = RunState.of(run)
    built = run.require_current(BUILD_STEP["pruned"])
    recipe = _recipe(state, built, "dense", None)
    return _measure(state, built, recipe, "dense", None, reporter)


def _recipe(state: RunState, built: Manifest, reference: Reference, rel_l2: float | None) -> Manifest:
    inputs = {
        "calibrate": state.calibration.digest,
        "pruned": state.run.require_current("pruned").digest,
        BUILD_STEP["pruned"]: built.digest,
    }
    return Manifest("check", inputs, {"reference": reference, "rel_l2": rel_l2}, package_versions("torch", "diffusers"))


def _measure(
    state: RunState, built: Manifest, recipe: Manifest, reference: Reference, rel_l2: float | None, reporter: Reporter
) -> tuple[CheckReport, bool]:
    def make(scratch: Path) -> dict[str, Any]:
        report = _compare(state, built, reference, rel_l2, reporter)
        (scratch / FILE).write_text(report.to_json(), encoding="utf-8")
        return {"passed": report.passed, "failures": list(report.failures)}

    _, made = state.run.perform(recipe, make, files=(FILE,))
    return CheckReport.read(state.run.path / FILE), made


def _compare(
    state: RunState, built: Manifest, reference: Reference, rel_l2: float | None, reporter: Reporter
) -> CheckReport:
    device = pick_device()
    calls = [
        DenoiserCall(index, call.timestep, call.on(device, torch.float32), torch.empty(0))
        for index, call in enumerate(state.calls())
    ]
    dtype = str(built.facts["dtype"])
    engine_name = f"engine ({built.facts['backend']} {dtype})"
    bounds = CheckBounds.for_export(dtype)
    if reference == "pruned" and rel_l2 is not None:
        bounds = CheckBounds(rel_l2=rel_l2)
    total = len(calls) * (2 if reference == "dense" else 1)
    with reporter.task("checking", total=total) as advance:

        def progress(done: int, of: int) -> None:
            del done, of
            advance()

        pruned = pruned_torch(state, device)
        with engine_denoiser(state) as engine, torch.no_grad():
            export = compare(("pruned (PyTorch fp32)", engine_name), pruned, engine, calls, bounds, progress=progress)
        if reference == "pruned":
            return CheckReport(export)
        state.verified_source_digest()
        dense = load_variant(state, "dense", 0, 1, device)
        pruning = compare(
            ("dense (PyTorch fp32)", "pruned (PyTorch fp32)"),
            dense,
            pruned,
            calls,
            CheckBounds(rel_l2=rel_l2),
            progress=progress,
        )
        family, inputs = family_of(dense), calls[len(calls) // 2].inputs
        grid = family.token_grid(dense, inputs)
        couplings = {
            name: coupling(denoiser, family, inputs, grid, frames=perturbed_frames(grid.frames))
            for name, denoiser in (("dense", dense), ("pruned", pruned))
        }
        return CheckReport(export, pruning, couplings)


def perturbed_frames(frames: int) -> list[int]:
    """The frames that the coupling test changes, one call each: at most four, first to last."""
    return sorted({round(k * (frames - 1) / 3) for k in range(4)})


def pruned_torch(state: RunState, device: torch.device, dtype: str = "fp32") -> Callable[..., Any]:
    """The pruned denoiser in PyTorch, called like the original; with stages, the one that serves the timestep."""
    entry = state.run.require("pruned")
    stages = len(entry.facts["parameters"])
    denoisers = [load_variant(state, "pruned", stage, stages, device, dtype) for stage in range(stages)]
    if stages == 1:
        return denoisers[0]
    state.run.require("masks")
    masks = Masks.load(state.run.path / MASKS)

    def denoise(**inputs: Any) -> Any:
        timestep = inputs["timestep"]
        value = float(timestep.flatten()[0]) if torch.is_tensor(timestep) else float(timestep)
        return denoisers[stage_of(masks, value)](**inputs)

    return denoise
