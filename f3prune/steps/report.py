"""Report: everything a run found, as ``report.json`` and one HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calibration import Calibration
from calibration.aas import cross_frame
from f3prune.evaluation.page import render
from f3prune.manifest import Manifest, package_versions
from f3prune.progress import SILENT, Reporter
from f3prune.run_directory import PLACES, RunDirectory
from f3prune.steps._state import RunState
from f3prune.steps.bench import FILE as BENCH
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.calibrate import AAS
from f3prune.steps.check import FILE as CHECK
from f3prune.steps.export import STEP as EXPORT_STEP
from f3prune.steps.generate import SHEET, VIDEO
from f3prune.steps.prune import MASKS

JSON, HTML = "report.json", "report.html"
VERSION = 1
"""Of ``report.json``."""
PAGE = 3
"""Of the page: another number writes it again."""


def report(run: RunDirectory, reporter: Reporter = SILENT) -> tuple[Path, bool]:
    """Write ``report.json`` and ``report.html`` from what the run holds.

    Video, parity and speed appear if generate, check and bench ran; calibration and pruning must have.

    Returns:
        The HTML page, and whether it was written now.

    Raises:
        ArtifactError: not calibrated and pruned, or a file was altered.
    """
    state = RunState.of(run)
    entries = {"calibrate": state.calibration, "masks": run.require("masks"), "pruned": run.require("pruned")}
    for step in (EXPORT_STEP["pruned"], BUILD_STEP["pruned"], "generate", "check", "bench"):
        # A step that is absent, or was made from what is no longer here, has nothing to say about this run.
        if _is_current(run, step):
            read = step in {"generate", "check", "bench"}
            entries[step] = run.require(step) if read else run.require_current(step)
    recipe = Manifest(
        "report", {name: entry.digest for name, entry in entries.items()}, {"page": PAGE}, package_versions()
    )

    def make(scratch: Path) -> None:
        with reporter.task("writing the report"):
            data = collect(state, entries)
            video = (run.path / VIDEO).read_bytes() if "generate" in entries else None
            frames = (run.path / SHEET).read_bytes() if "generate" in entries else None
            (scratch / JSON).write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            (scratch / HTML).write_text(render(data, video, frames), encoding="utf-8")

    _, made = run.perform(recipe, make, files=(JSON, HTML))
    return run.path / HTML, made


def _is_current(run: RunDirectory, step: str) -> bool:
    found = run.manifest(step)
    if found is None:
        return False
    for name, digest in found.inputs.items():
        if name in PLACES:
            upstream = run.manifest(name)
            if upstream is None or upstream.digest != digest or not _is_current(run, name):
                return False
    return True


def collect(state: RunState, entries: dict[str, Manifest]) -> dict[str, Any]:
    """The content of ``report.json``."""
    run = state.run
    masks = json.loads((run.path / MASKS).read_text(encoding="utf-8"))
    measured = Calibration.load(run.path / AAS)
    facts = state.calibration.facts
    chosen, pruned = entries["masks"].facts, entries["pruned"].facts
    generated = entries["generate"].facts if "generate" in entries else {}
    parity = json.loads((run.path / CHECK).read_text(encoding="utf-8")) if "check" in entries else None
    speed = json.loads((run.path / BENCH).read_text(encoding="utf-8")) if "bench" in entries else None
    shared = [mass for mass in measured.mass.values() if mass.shape[-1] == next(iter(measured.mass.values())).shape[-1]]
    return {
        "version": VERSION,
        "model": state.source.spec,
        "family": state.family.name,
        "denoiser_class": facts["denoiser_class"],
        "synthetic": state.synthetic,
        "prompt": generated.get("prompt"),
        "parameters": {"before": facts["parameters"], "after": pruned["parameters"]},
        "pruning": {
            **{name: chosen[name] for name in ("alpha", "granularity", "aggregate", "mode", "protect", "digest")},
            "counts": pruned["counts"],
        },
        "stages": masks["stages"],
        "timesteps": list(measured.timesteps),
        "frame_mass": (sum(mass.double().mean((0, 1)) for mass in shared) / len(shared)).tolist(),  # type: ignore[union-attr]
        "aas_by_timestep": {
            name: cross_frame(mass).sum((1, 2, 3)).div(mass.shape[1] * mass.shape[2]).tolist()
            for name, mass in measured.mass.items()
        },
        "fidelity": generated.get("fidelity"),
        "speed": speed,
        "parity": parity,
        "provenance": _provenance(state, entries),
    }


def _provenance(state: RunState, entries: dict[str, Manifest]) -> dict[str, str]:
    facts = state.calibration.facts
    rows = {
        "model": state.source.spec,
        "denoiser (sha256)": state.calibration.inputs["source"],
        "masks (sha256)": str(entries["masks"].facts["digest"]),
        "settings": ", ".join(f"{name} {value}" for name, value in facts["settings"].items() if value is not None),
        "prompts": "none: synthetic" if state.synthetic else "; ".join(p["prompt"] for p in facts["prompts"]),
        "query rows": str(state.calibration.options["rows"] or "all"),
    }
    if "engine" in entries:
        engine = entries["engine"].facts
        rows["engine"] = f"{engine['backend']} {engine['backend_version']}, {engine['dtype']}"
    versions = {name: v for entry in entries.values() for name, v in entry.versions.items()}
    rows["versions"] = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return rows
