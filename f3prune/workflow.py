"""Run: every step from MODEL to report, each skipped if what it made is still good."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from f3prune.bench.speed import BenchOptions, bench, ensure_dense_engine
from f3prune.calibration import PruneConfig
from f3prune.core.errors import CheckFailed
from f3prune.core.manifest import Manifest
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.engines import BuildConfig
from f3prune.engines.backends import missing_gpu
from f3prune.engines.check import CheckReport
from f3prune.exporter import ExportConfig
from f3prune.report.build import report
from f3prune.steps.build import build
from f3prune.steps.calibrate import CalibrateOptions, calibrate
from f3prune.steps.check import check_once
from f3prune.steps.export import export
from f3prune.steps.generate import GenerateOptions, generate_into_run
from f3prune.steps.prune import prune


@dataclass(frozen=True)
class RunOptions:
    """Options of all steps.

    Attributes:
        calibration, pruning, exporting, building, benchmarking: of these steps.
        prompt: of the demonstration video; None takes the first calibration prompt.
    """

    calibration: CalibrateOptions
    pruning: PruneConfig
    exporting: ExportConfig = field(default_factory=ExportConfig)
    building: BuildConfig = field(default_factory=BuildConfig)
    benchmarking: BenchOptions = field(default_factory=lambda: BenchOptions(rounds=12, budget_s=30.0))
    prompt: str | None = None


@dataclass
class RunSummary:
    """What a run did and found.

    Attributes:
        steps: name of each step, seconds it took, and whether it was made now (else it was up to date).
        calibration, pruned, built, generated: manifest entries; ``generated`` is None for a denoiser alone.
        speed: content of ``bench.json``.
        parity: what the check found.
        report: the HTML page.
        missing: why the engine cannot run on this machine, as the end of a sentence; None where it can.
        left: what is left for a machine that can run it, each a call in the words of messages.
    """

    steps: list[tuple[str, float, bool]] = field(default_factory=list)
    calibration: Manifest | None = None
    pruned: Manifest | None = None
    built: Manifest | None = None
    generated: Manifest | None = None
    speed: dict[str, Any] = field(default_factory=dict)
    parity: CheckReport | None = None
    report: Path | None = None
    missing: str | None = None
    left: tuple[str, ...] = ()


def run_all(run: RunDirectory, options: RunOptions, reporter: Reporter = SILENT) -> RunSummary:
    """Calibrate, prune, export, build, generate, check, bench and report, in this order.

    An engine that cannot run here, for want of a GPU, is built all the same, and so is the dense one beside it.
    The check then runs the graph in ONNX Runtime. What needs the engine is left, and ``RunSummary.left`` says what.

    Raises:
        CheckFailed: the engine does not compute what the pruned model does; the report is written first.
        F3PruneError: whatever a step raises; what was finished before stays and is not made again.
    """
    summary = RunSummary()

    def step(name: str, make: Callable[[], tuple[Any, bool]]) -> Any:
        started = time.monotonic()
        result, made = make()
        seconds = time.monotonic() - started
        summary.steps.append((name, seconds, made))
        reporter.note(f"{name}: {'done' if made else 'up to date'} in {seconds:.1f} s")
        return result

    calibration = step("calibrate", lambda: calibrate(run, options.calibration, reporter))
    summary.calibration = calibration
    summary.pruned = step("prune", lambda: prune(run, options.pruning, reporter))
    step("export", lambda: export(run, options.exporting, "pruned", reporter))
    summary.built = step("build", lambda: build(run, options.building, "pruned", reporter))
    summary.missing = missing_gpu(options.building.backend)
    if summary.missing is None and not calibration.facts["synthetic"]:
        first = calibration.facts["prompts"][0]
        image = Path(first["image"]) if "image" in first else None
        prompt = GenerateOptions(options.prompt or first["prompt"], image, backend=options.building.backend)
        summary.generated = step("generate", lambda: generate_into_run(run, prompt, reporter))
    summary.parity = step("check", lambda: check_once(run, reporter, options.calibration.offload))
    step("dense engine", lambda: _dense(run, reporter))
    if summary.missing is None:
        summary.speed = step("bench", lambda: bench(run, options.benchmarking, reporter, again=False))
    else:
        summary.left = _left(run, options, calibration)
    summary.report = step("report", lambda: report(run, reporter))
    if summary.parity is not None and not summary.parity.passed:
        raise CheckFailed(f"{summary.parity.failures[0]}; see {summary.report}")
    return summary


def _left(run: RunDirectory, options: RunOptions, calibration: Manifest) -> tuple[str, ...]:
    """Calls for the GPU machine, in order, in the words of messages; they take the run as it is."""
    path = str(run.path)
    generate = []
    if not calibration.facts["synthetic"]:
        prompt = options.prompt or calibration.facts["prompts"][0]["prompt"]
        generate = [f"`generate(run={path!r}, prompt={prompt!r}, output='video.mp4')`"]
    return (
        f"`check(run={path!r}, reference='dense')`",
        *generate,
        f"`bench(run={path!r})`",
        f"`report(run={path!r})`",
    )


def _dense(run: RunDirectory, reporter: Reporter) -> tuple[Manifest, bool]:
    before = run.manifest("dense-engine")
    after = ensure_dense_engine(run, reporter)
    return after, before is None or before.digest != after.digest
