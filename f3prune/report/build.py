"""Report: everything a run found, as ``report.json`` and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from f3prune.bench.contest.arithmetic import sizes_of
from f3prune.bench.costs.ceiling import matmuls_allow
from f3prune.bench.speed import FILE as BENCH
from f3prune.calibration import Calibration
from f3prune.calibration.aas import cross_frame
from f3prune.calibration.replacements import Replacement
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import parse_json
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import PLACES, RunDirectory
from f3prune.core.tensors import GRAPH_FILE
from f3prune.exporter import graph_costs
from f3prune.pipelines.video import FPS
from f3prune.report.page import Media, render
from f3prune.steps._state import RunState, stage_directories
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.calibrate import AAS
from f3prune.steps.check import FILE as CHECK
from f3prune.steps.export import STEP as EXPORT_STEP
from f3prune.steps.generate import DENSE_VIDEO, SHEET, VIDEO
from f3prune.steps.prune import MASKS

JSON, HTML = "report.json", "report.html"
VERSION = 1
"""Of ``report.json``."""
PAGE = 6
"""Of the page: another number writes it again."""
EVALUATION, SWEEP = "evaluation.json", "sweep.json"
_READ = ("generate", "check", "bench", "evaluate", "sweep")
"""Steps whose files go into the report."""


def report(run: RunDirectory, reporter: Reporter = SILENT) -> tuple[Path, bool]:
    """Write ``report.json`` and ``report.html`` from what the run holds.

    Video, parity, speed, quality and sweep appear if generate, check, bench, evaluate and sweep ran; calibration and
    pruning must have.

    Returns:
        The HTML page, and whether it was written now.

    Raises:
        ArtifactError: not calibrated and pruned, or a file was altered.
    """
    state = RunState.of(run)
    entries = {"calibrate": state.calibration, "masks": run.require("masks"), "pruned": run.require("pruned")}
    for step in (*EXPORT_STEP.values(), BUILD_STEP["pruned"], *_READ):
        # A step that is absent, or was made from what is no longer here, has nothing to say about this run.
        if _is_current(run, step):
            entries[step] = run.require(step) if step in _READ else run.require_current(step)
    recipe = Manifest(
        "report", {name: entry.digest for name, entry in entries.items()}, {"page": PAGE}, package_versions()
    )

    def make(scratch: Path) -> None:
        with reporter.task("writing the report"):
            data = collect(state, entries)
            files = {VIDEO, DENSE_VIDEO, SHEET} if "generate" in entries else set()
            pruned, dense, frames = (
                run.content("generate", name) if name in files else None for name in (VIDEO, DENSE_VIDEO, SHEET)
            )
            media = Media(pruned, dense, frames, FPS)
            (scratch / JSON).write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            (scratch / HTML).write_text(render(data, media), encoding="utf-8")

    _, made = run.perform(recipe, make, files=(JSON, HTML))
    return run.path / HTML, made


def _is_current(run: RunDirectory, step: str) -> bool:
    found = run.manifest(step) if step in PLACES else None
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
    masks = parse_json(run.content("masks", MASKS))
    measured = Calibration.load(run.path / AAS)
    facts = state.calibration.facts
    chosen, pruned = entries["masks"].facts, entries["pruned"].facts
    generated = entries["generate"].facts if "generate" in entries else {}
    found = {
        step: parse_json(run.content(step, file)) if step in entries else None
        for step, file in (("check", CHECK), ("bench", BENCH), ("evaluate", EVALUATION), ("sweep", SWEEP))
    }
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
            **{
                name: chosen[name]
                for name in ("alpha", "granularity", "aggregate", "mode", "score", "protect", "refit", "digest")
            },
            "counts": pruned["counts"],
        },
        "stages": [
            {**stage, "sites": {name: _shown(site) for name, site in stage["sites"].items()}}
            for stage in in_module_order(masks["stages"], list(measured.sites))
        ],
        "timesteps": list(measured.timesteps),
        "frame_mass": (sum(mass.double().mean((0, 1)) for mass in shared) / len(shared)).tolist(),  # type: ignore[union-attr]
        "frame_mass_by_site": {
            name: _rounded(mass.double().mean((0, 1)).tolist()) for name, mass in measured.mass.items()
        },
        "aas": {
            name: _rounded((cross_frame(mass).sum((2, 3)) / mass.shape[2]).tolist())
            for name, mass in measured.mass.items()
        },
        "aas_by_timestep": {
            name: cross_frame(mass).sum((1, 2, 3)).div(mass.shape[1] * mass.shape[2]).tolist()
            for name, mass in measured.mass.items()
        },
        "fidelity": generated.get("fidelity"),
        "speed": found["bench"],
        "ceiling": _ceiling(state, entries, masks["stages"], found["bench"]),
        "parity": found["check"],
        "quality": found["evaluate"],
        "sweep": found["sweep"],
        "provenance": _provenance(state, entries),
    }


def in_module_order(stages: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Stages of ``masks.json``, whose sites stand by name, block 10 before block 2, in the order of the modules."""
    return [{**stage, "sites": {name: stage["sites"][name] for name in names}} for stage in stages]


def _shown(site: Mapping[str, Any]) -> dict[str, Any]:
    """A site of ``masks.json`` with its replacement as a mode; its maps are no matter for a page."""
    replacement = site["replacement"]
    return {**site, "replacement": None if replacement is None else Replacement.from_json(replacement).spec}


def _rounded(rows: list[list[float]]) -> list[list[float]]:
    """Enough digits for a picture."""
    return [[round(value, 5) for value in row] for row in rows]


def _ceiling(
    state: RunState, entries: dict[str, Manifest], stages: list[dict[str, Any]], speed: dict[str, Any] | None
) -> dict[str, float] | None:
    """Operations of the matrix products of the call that bench timed, dense and pruned, and the speed-up they allow.

    Counted from the graphs, nothing is run; None where either is missing, or is replayed token by token.
    """
    if speed is None or not state.strategy.one_graph or not set(EXPORT_STEP.values()) <= entries.keys():
        return None
    # A stage serves every timestep down to its lowest.
    serving = (k for k, stage in enumerate(stages) if speed["timestep"] >= stage["timesteps"][1])
    directories = stage_directories(state.run.directory(EXPORT_STEP["pruned"]), len(stages))
    graphs = {
        "dense": state.run.directory(EXPORT_STEP["dense"]) / GRAPH_FILE,
        "pruned": directories[next(serving, len(stages) - 1)] / GRAPH_FILE,
    }
    for name, step in (("dense", EXPORT_STEP["dense"]), ("pruned", EXPORT_STEP["pruned"])):
        state.run.verify_file(step, graphs[name].relative_to(state.run.directory(step)).as_posix())
    try:
        flops = {name: graph_costs(graph, sizes_of(state)).matmul_flops for name, graph in graphs.items()}
        return {**flops, "allow": matmuls_allow(flops["dense"], flops["pruned"])}
    except (ArtifactError, InputError):
        # The report is no place to fail over a number that it can do without.
        return None


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
