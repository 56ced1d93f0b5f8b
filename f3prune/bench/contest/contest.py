"""Every contender generates the same thing in turn; time and quality of each, side by side."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from f3prune.bench.contenders import Contender, Missing, contenders_of, registry
from f3prune.bench.contenders._base import Opened
from f3prune.bench.contest.arithmetic import Arithmetic
from f3prune.bench.contest.generation import Generation, Made, generation_of, reason_of
from f3prune.bench.contest.sweep import Sweep
from f3prune.bench.contest.timed import TimedDenoiser
from f3prune.bench.equal_quality import CAP_DB, Match, Point, hardest, matches
from f3prune.bench.speed import machine, summary
from f3prune.calibration import Calibration, PruneConfig, suits_pairs
from f3prune.calibration.auto import modes_to_compare
from f3prune.core.errors import InputError
from f3prune.core.json_values import json_values, parse_json
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.core.tensors import torch_dtype
from f3prune.engines.backends.trt_flavour import PACKAGES as TENSORRT_PACKAGES
from f3prune.pipelines.fidelity import fidelity
from f3prune.pipelines.loading import pick_device
from f3prune.pipelines.pipeline_runs import Frames
from f3prune.steps._state import RunState
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.calibrate import AAS

FILE = "contenders.json"
VERSION = 1
LEAST_ROUNDS = 3
MEMORY_SHARE = 0.35
"""Contenders stay open between their turns while so much of the machine's memory is free."""
PACKAGES = ("torch", "diffusers", "onnxruntime-gpu", "onnxruntime", "openvino", *TENSORRT_PACKAGES)


@dataclass(frozen=True)
class ContestOptions:
    """What to compare, and for how long.

    Attributes:
        kinds: of contenders; empty means all.
        alphas, granularities, modes: what is pruned: every combination that has a meaning, and the run's own. Without
            modes, those that suit the model (``modes_to_compare``).
        skips: shares of the denoising steps that our engines skip, beside computing all.
        steps: denoising steps; None takes calibration's.
        rounds: every contender generates once per round, in a random order.
        budget_s: start no further round after so many seconds of rounds, but make three.
    """

    kinds: tuple[str, ...] = ()
    alphas: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    granularities: tuple[str, ...] = ("layer", "head")
    modes: tuple[str, ...] = ()
    skips: tuple[float, ...] = (0.1, 0.2, 0.35, 0.5)
    steps: int | None = None
    rounds: int = 5
    budget_s: float = 300.0

    def __post_init__(self) -> None:
        """Raises ``InputError`` for an unknown kind, too few rounds, or a share of steps that is none."""
        for skip in self.skips:
            if not 0 < skip < 1:
                raise InputError(f"`skips` has {skip:g}: give shares of the steps between 0 and 1, e.g. 0.2,0.5")
        for kind in self.kinds:
            if kind not in registry():
                raise InputError(f"no contender {kind!r}: expected all, or some of {', '.join(registry())}")
        if self.rounds < LEAST_ROUNDS:
            raise InputError(f"`rounds` is {self.rounds}: quartiles need at least {LEAST_ROUNDS}")

    def points(self, own: PruneConfig) -> list[PruneConfig]:
        """Every combination, with the run's own aggregation, stages, protected sites and score; none is refitted."""
        found = []
        for granularity in self.granularities:
            for mode in self.modes:
                if granularity == "frame-pair" and not suits_pairs(mode, own.score):  # type: ignore[arg-type]
                    continue
                aggregate = "timesteps" if granularity == "layer" else own.aggregate
                for alpha in self.alphas:
                    changes: Any = {"granularity": granularity, "aggregate": aggregate, "mode": mode}
                    found.append(replace(own, alpha=alpha, speedup=None, candidates=(), refit=0, **changes))
        return found


@dataclass
class ContestEntry:
    """A contender in the contest.

    Attributes:
        contender: what it is.
        missing: why it has no numbers.
        first: what its first generation, untimed, gave.
        facts: of its preparation.
        prepared_s: seconds from nothing to ready, engines and compilation included.
        denoising, whole: seconds of every timed generation.
        resident: stayed open between its turns.
    """

    contender: Contender
    missing: Missing | None = None
    first: Made | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    prepared_s: float = 0.0
    denoising: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    resident: bool = True
    timed: TimedDenoiser | None = None
    open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


def contest(
    run: RunDirectory,
    options: ContestOptions | None = None,
    reporter: Reporter = SILENT,
    watch: Callable[[Sequence[ContestEntry]], None] = lambda entries: None,
) -> dict[str, Any]:
    """Compare every contender by whole generations; graphs and engines that are missing are made first and kept.

    Args:
        run: built.
        options: what to compare.
        reporter: of progress.
        watch: called whenever a contender has new numbers.

    Returns:
        The content of ``contenders.json``.

    Raises:
        ArtifactError: an earlier step is missing, altered or stale; names the command that makes it.
    """
    options = options or ContestOptions()
    state = RunState.of(run)
    if not options.modes:
        options = replace(options, modes=modes_to_compare(Calibration.load(run.path / AAS)))
    built = run.require_current(BUILD_STEP["pruned"])
    inputs = {
        "calibrate": state.calibration.digest,
        "pruned": run.require_current("pruned").digest,
        BUILD_STEP["pruned"]: built.digest,
    }
    recipe = Manifest("contenders", inputs, json_values(options), package_versions(*PACKAGES))
    run.forget("contenders")

    def make(scratch: Path) -> dict[str, Any]:
        result = _compare(state, str(built.facts["dtype"]), options, reporter, watch)
        (scratch / FILE).write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return {}

    run.perform(recipe, make, files=(FILE,))
    found: dict[str, Any] = parse_json(run.content("contenders", FILE))
    return found


def _compare(
    state: RunState,
    engine_dtype: str,
    options: ContestOptions,
    reporter: Reporter,
    watch: Callable[[Sequence[ContestEntry]], None],
) -> dict[str, Any]:
    state.verified_source_digest()
    device = pick_device()
    dtype = torch_dtype(engine_dtype if device.type == "cuda" else "fp32")
    with reporter.task("loading the model"):
        generation = generation_of(state, options.steps, device, dtype)
        sweep = Sweep(state, generation, reporter)
    own = sweep.own_config()
    points = sweep.distinct([own, *options.points(own)])
    entries = [
        ContestEntry(contender)
        for contender in _one_line_each(contenders_of(points, options.kinds, options.skips), sweep)
    ]
    with contextlib.ExitStack() as stack, _collecting_by_hand():
        for entry in entries:
            stack.callback(entry.open.close)
        with reporter.task("preparing contenders", total=len(entries)) as advance:
            for entry in entries:
                _prepare(entry, sweep, reporter)
                watch(entries)
                advance()
        running = [entry for entry in entries if entry.missing is None]
        with reporter.task("measuring", total=options.rounds * len(running)) as advance:
            for entry in take_turns(running, sweep, options.rounds, options.budget_s):
                del entry
                watch(entries)
                advance()
    arithmetic = Arithmetic(state, sweep, engine_dtype if device.type == "cuda" else "fp32")
    return _result(entries, generation, state, engine_dtype, arithmetic)


def _one_line_each(contenders: Sequence[Contender], sweep: Sweep) -> list[Contender]:
    """A backend that is absent is listed once, not for every pruning and every share of steps."""
    said: set[tuple[str, str]] = set()
    kept = []
    for contender in contenders:
        missing = contender.missing(sweep)
        reason = None if missing is None else (contender.kind, missing.reason)
        if reason is None or (contender.pruning is None and reason not in said):
            kept.append(contender)
        if reason is not None:
            said.add(reason)
    return kept


@contextlib.contextmanager
def _collecting_by_hand() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _prepare(entry: ContestEntry, sweep: Sweep, reporter: Reporter) -> None:
    """Open it and generate once; what fails here is listed with its reason."""
    contender = entry.contender
    entry.missing = contender.missing(sweep)
    if entry.missing is not None:
        return
    reporter.note(f"preparing {contender.name}")
    started = time.perf_counter()
    with _failing(entry):
        _open(entry, sweep)
        assert entry.timed is not None
        entry.prepared_s = time.perf_counter() - started
        sweep.generation.settle(entry.timed)
        entry.first = sweep.generation.run(entry.timed)
    if entry.missing is not None:
        return
    gc.collect()
    memory = psutil.virtual_memory()
    entry.resident = memory.available > MEMORY_SHARE * memory.total
    if not entry.resident:
        _close(entry)


def _open(entry: ContestEntry, sweep: Sweep) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' advice on their own options
        opened: Opened = entry.open.enter_context(entry.contender.opened(sweep))
    entry.facts.update(opened.facts)
    entry.timed = TimedDenoiser(opened.denoiser, sweep.device)


def _close(entry: ContestEntry) -> None:
    entry.timed = None
    entry.open.close()
    gc.collect()


def take_turns(running: Sequence[ContestEntry], sweep: Sweep, rounds: int, budget_s: float) -> Iterator[ContestEntry]:
    """Let every contender generate once per round, in a seeded random order; yields whoever has just done so.

    Before its turn a contender makes untimed calls for a moment: the threads of the one before it keep spinning for a
    while, and would take a core from it.
    """
    order = random.Random(0)
    started = time.monotonic()
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.monotonic() - started > budget_s:
            return
        for entry in order.sample(list(running), len(running)):
            if entry.missing is None:
                with _failing(entry):
                    _take_turn(entry, sweep)
            yield entry
        gc.collect()


def _take_turn(entry: ContestEntry, sweep: Sweep) -> None:
    if entry.timed is None:
        _open(entry, sweep)
    assert entry.timed is not None
    sweep.generation.settle(entry.timed)
    made = sweep.generation.run(entry.timed)
    entry.denoising.append(made.denoising)
    entry.whole.append(made.whole)
    if not entry.resident:
        _close(entry)


@contextlib.contextmanager
def _failing(entry: ContestEntry) -> Iterator[None]:
    """List what goes wrong inside with its reason, unless the contender is one that has to work."""
    try:
        yield
    except Exception as error:  # other libraries' methods fail in any way; the contest goes on without them
        if entry.contender.required:
            raise
        entry.missing = Missing("failed", reason_of(error))
        _close(entry)


def point_of(row: dict[str, Any]) -> Point:
    """A measured row as a point in the plane of time and quality."""
    return Point(row["name"], row["denoising"]["median"], row["psnr"], row["own"], row["pruned"])


def _result(
    entries: Sequence[ContestEntry], generation: Generation, state: RunState, engine_dtype: str, arithmetic: Arithmetic
) -> dict[str, Any]:
    reference = entries[0].first
    assert reference is not None
    rows = [_row(entry, reference, generation.latents, arithmetic) for entry in entries]
    measured = [point_of(row) for row in rows if row["status"] == "measured"]
    found = matches(measured)
    return {
        "version": VERSION,
        "what": generation.what,
        "model": state.source.spec if state.source.zoo_name else state.source.class_name,
        "family": state.family.name,
        "steps": generation.steps,
        "calls": reference.calls,
        "engine_dtype": engine_dtype,
        "torch_dtype": str(generation.dtype).removeprefix("torch."),
        "cap_db": CAP_DB,
        "rates": json_values(arithmetic.rates),
        "rows": rows,
        "equal_quality": [_match(match) for match in found],
        "best_other": _optional(hardest(found)),
        "best_other_without_pruning": _optional(hardest(match for match in found if not match.other.pruned)),
        "machine": {**machine(), "load_after": os.getloadavg()[0]},
        "versions": package_versions(*PACKAGES),
    }


def _match(match: Match) -> dict[str, Any]:
    own = match.own
    return {
        "other": match.other.name,
        "psnr": match.other.psnr,
        "own": None if own is None else own.name,
        "own_psnr": None if own is None else own.psnr,
        "ratio": match.ratio,
    }


def _optional(match: Match | None) -> dict[str, Any] | None:
    return None if match is None else _match(match)


def _row(entry: ContestEntry, reference: Made, latents: bool, arithmetic: Arithmetic) -> dict[str, Any]:
    contender = entry.contender
    row: dict[str, Any] = {
        "name": contender.name,
        "contender": contender.to_json(),
        "own": contender.own,
        "pruned": contender.pruning is not None,
        "status": "measured" if entry.missing is None else entry.missing.status,
    }
    if entry.missing is not None:
        return {**row, "reason": entry.missing.reason}
    assert entry.first is not None
    frames = (reference.frames, entry.first.frames)
    found = fidelity(*(_to_unit_range(*frames) if latents else frames))
    denoising = summary(entry.denoising)
    return {
        **row,
        "psnr": found.psnr,
        "ssim": found.ssim,
        "denoising": denoising,
        "generation": summary(entry.whole),
        "products": arithmetic.of(
            contender.pruning, reference.calls * (1 - entry.facts.get("skipped_share", 0.0)), denoising["median"]
        ),
        "prepare_seconds": entry.prepared_s,
        "resident": entry.resident,
        "facts": entry.facts,
    }


def _to_unit_range(reference: Frames, candidate: Frames) -> tuple[Frames, Frames]:
    """Both latents on the scale where the reference's go from 0 to 1, so that PSNR has a peak.

    Raises:
        InputError: the candidate's latents are not finite.
    """
    import numpy as np

    if not np.isfinite(candidate).all():
        raise InputError("the latents are not finite: use `dtype='fp32'` or `'bf16'` instead of fp16")
    low, span = float(reference.min()), float(reference.max() - reference.min()) or 1.0
    return (reference - low) / span, (candidate - low) / span
