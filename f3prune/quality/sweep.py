"""Sweep: many pruning configurations of one run, each with the measured latency of its engine and its quality."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from f3prune.bench.contest.generation import PipelineGeneration
from f3prune.bench.contest.sweep import Sweep, masks_key
from f3prune.bench.speed import BenchOptions, alternate, ensure_dense_engine, machine, summary
from f3prune.calibration import Calibration, Masks, PruneConfig, default_score, suits_pairs
from f3prune.calibration.auto import modes_to_compare
from f3prune.core.errors import InputError
from f3prune.core.json_values import json_values, parse_json
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.core.tensors import torch_dtype
from f3prune.pipelines.loading import pick_device
from f3prune.quality.compare import compare
from f3prune.quality.judging import JudgeOptions, Judging
from f3prune.quality.metrics import INFO
from f3prune.quality.pool import measure_many
from f3prune.steps._state import PACKAGES, RunState
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.calibrate import AAS
from f3prune.steps.prune import counts
from f3prune.steps.scores import masks_of

FILE = "sweep.json"
VERSION = 1
DENSE = "dense"


@dataclass(frozen=True)
class SweepOptions:
    """What is tried: all combinations that have a meaning, those that prune the same once.

    Attributes:
        alphas, granularities, aggregates, stages: see ``PruneConfig``.
        modes: see ``PruneConfig``; those that suit the model (``modes_to_compare``) where none is given.
        scores: see ``PruneConfig``; None takes the default of each granularity.
        quality: the metric of the Pareto front.
        judge: how quality is measured.
        jobs: worker processes; None takes one per processor.
        rounds: timed calls of every engine.
    """

    alphas: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    granularities: tuple[str, ...] = ("layer", "head")
    aggregates: tuple[str, ...] = ("timesteps",)
    modes: tuple[str, ...] = ()
    scores: tuple[str, ...] | None = None
    stages: tuple[int, ...] = (1,)
    quality: str = "psnr"
    judge: JudgeOptions = field(default_factory=lambda: JudgeOptions(samples=16))
    jobs: int | None = None
    rounds: int = 20

    def __post_init__(self) -> None:
        """Raises ``InputError`` for a metric that is not measured or has no better and worse."""
        if self.quality not in INFO or INFO[self.quality].better is None:
            known = ", ".join(name for name, info in INFO.items() if info.better is not None)
            raise InputError(f"`quality` is {self.quality!r}, expected one of {known}")
        if self.judge.metrics is not None and self.quality not in self.judge.metrics:
            raise InputError(f"`quality` {self.quality} is not among `metrics`: add it there, or choose one of them")

    def configs(self) -> Iterator[PruneConfig]:
        """Every combination that has a meaning."""
        scores = self.scores or (None,)
        shapes = (self.granularities, self.aggregates, self.modes, scores, self.stages, self.alphas)
        for granularity, aggregate, mode, score, stages, alpha in itertools.product(*shapes):
            if granularity == "layer" and aggregate == "layers":
                continue
            chosen = score or default_score(granularity)  # type: ignore[arg-type]
            if granularity == "frame-pair" and not suits_pairs(mode, chosen):  # type: ignore[arg-type]
                continue
            yield PruneConfig(alpha, granularity, aggregate, mode, stages, score=chosen)  # type: ignore[arg-type]


def sweep(run: RunDirectory, options: SweepOptions, reporter: Reporter = SILENT) -> tuple[dict[str, Any], bool]:
    """Measure all points; writes ``sweep.json``. What was measured before an interruption is not measured again.

    Returns:
        The content of ``sweep.json``, and whether it was made now.

    Raises:
        ArtifactError: the run was not built, or a file was altered.
        InputError: no combination has a meaning, or quality cannot be measured.
    """
    state = RunState.of(run)
    built = run.require_current(BUILD_STEP["pruned"])
    dense = ensure_dense_engine(run, reporter)
    if not options.modes:
        options = replace(options, modes=modes_to_compare(Calibration.load(run.path / AAS)))
    configs = list(options.configs())
    if not state.strategy.frame_pairs:
        configs = [config for config in configs if config.granularity != "frame-pair"]
    if not configs:
        raise InputError("no combination of these options has a meaning: add a granularity, or mode local")
    judging = Judging(state, options.judge, reporter)
    recorded = {name: value for name, value in json_values(options).items() if name not in {"judge", "jobs"}}
    recipe = Manifest(
        "sweep",
        {
            "calibrate": state.calibration.digest,
            BUILD_STEP["pruned"]: built.digest,
            BUILD_STEP["dense"]: dense.digest,
        },
        {**recorded, "key": judging.key, "machine": machine()},
        package_versions(*PACKAGES),
    )

    def make(scratch: Path) -> dict[str, Any]:
        points = _distinct(state, configs, reporter)
        qualities = _qualities(judging, points, options, reporter)
        seconds = latencies(state, [config for config, _ in points], options, reporter)
        data = _result(points, qualities, seconds, options)
        (scratch / FILE).write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return {"points": len(points)}

    _, made = run.perform(recipe, make, files=(FILE,))
    loaded: dict[str, Any] = parse_json(run.content("sweep", FILE))
    return loaded, made


def _distinct(state: RunState, configs: Sequence[PruneConfig], reporter: Reporter) -> list[tuple[PruneConfig, Masks]]:
    """The first configuration of each kind of masks; those that prune nothing are left out."""
    found: dict[str, tuple[PruneConfig, Masks]] = {}
    for config in configs:
        masks = masks_of(state, config, reporter)
        found.setdefault(masks_key(masks), (config, masks))
    found.pop("dense", None)
    return list(found.values())


def _qualities(
    judging: Judging, points: Sequence[tuple[PruneConfig, Masks]], options: SweepOptions, reporter: Reporter
) -> list[dict[str, Any]]:
    measured = measure_many(judging, [masks for _, masks in points], options.jobs, reporter)
    dense, real = judging.dense("torch"), judging.real()
    found = []
    with reporter.task("comparing", total=len(measured)) as advance:
        for one in measured:
            found.append(compare(dense, one, real, resamples=options.judge.resamples))
            advance()
    return found


def latencies(
    state: RunState, configs: Sequence[PruneConfig], options: SweepOptions, reporter: Reporter
) -> dict[str, Any]:
    """Every engine's time for one call, all in turn: name → median and quartiles in seconds."""
    device = pick_device()
    dtype = torch_dtype("fp32" if device.type == "cpu" else _engine_dtype(state))
    context = Sweep(state, PipelineGeneration(state, None, device, dtype), reporter)
    backend = context.build_config().backend
    calls = state.calls()
    call = calls[len(calls) // 2]
    inputs = {**call.on(device, dtype), "return_dict": False}
    with contextlib.ExitStack() as stack:
        contestants: dict[str, Callable[..., Any]] = {}
        with reporter.task("building engines", total=len(configs) + 1) as advance:
            for name, config in [(DENSE, None), *((str(k), config) for k, config in enumerate(configs))]:
                engine = stack.enter_context(context.engine(config, backend))
                contestants[name] = state.strategy.timed(engine, call)
                advance()
        timing = BenchOptions(rounds=options.rounds, budget_s=600.0)
        with reporter.task("measuring engines", total=options.rounds + timing.warm_up) as advance:
            seconds = alternate(contestants, inputs, timing, device, advance)
    return {name: summary(values) for name, values in seconds.items()}


def _engine_dtype(state: RunState) -> str:
    return str(state.run.require_current(BUILD_STEP["pruned"]).facts["dtype"])


def _result(
    points: Sequence[tuple[PruneConfig, Masks]],
    qualities: Sequence[dict[str, Any]],
    seconds: dict[str, Any],
    options: SweepOptions,
) -> dict[str, Any]:
    rows = []
    for number, ((config, masks), quality) in enumerate(zip(points, qualities, strict=True)):
        own = seconds[str(number)]
        stages = counts(masks)
        rows.append(
            {
                "config": json_values(config),
                "masks": masks_key(masks),
                "pruned": {name: sum(stage[name] for stage in stages) for name in stages[0]},
                "seconds": own,
                "speedup": seconds[DENSE]["median"] / own["median"],
                "quality": quality["pruned"],
                "difference": quality["difference"],
            }
        )
    for row, front in zip(rows, pareto(rows, options.quality), strict=True):
        row["pareto"] = front
    return {
        "version": VERSION,
        "quality": options.quality,
        "metrics": qualities[0]["metrics"] if qualities else {},
        "samples": options.judge.samples,
        "machine": machine(),
        "dense": {"seconds": seconds[DENSE], "quality": qualities[0]["dense"] if qualities else {}},
        "points": rows,
    }


def pareto(rows: Sequence[dict[str, Any]], quality: str) -> list[bool]:
    """Which points no other beats in speed without losing quality, or in quality without losing speed."""
    sign = -1.0 if INFO[quality].better == "lower" else 1.0
    places = [(row["speedup"], sign * row["quality"][quality]["value"]) for row in rows]
    return [not any(o[0] >= p[0] and o[1] >= p[1] and o != p for o in places) for p in places]
