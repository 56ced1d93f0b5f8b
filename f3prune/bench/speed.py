"""Bench: one denoising step of dense and pruned, engine and PyTorch, in turn."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from f3prune.core.errors import InputError
from f3prune.core.json_values import from_json_values, parse_json
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.core.tensors import torch_dtype
from f3prune.engines import BuildConfig
from f3prune.exporter import ExportConfig
from f3prune.pipelines.loading import pick_device
from f3prune.pipelines.memory import check_offload, give_back, lazy, on_device
from f3prune.steps._state import RunState
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.build import build
from f3prune.steps.check import pruned_torch
from f3prune.steps.export import STEP as EXPORT_STEP
from f3prune.steps.export import export, load_variant
from f3prune.steps.sessions import engine_denoiser

FILE = "bench.json"
VERSION = 2
QUICK_S = 2.0
REST_S = 0.1
"""Seconds before a turn, in which the threads of whoever had the one before fall asleep."""
DENSE_ENGINE, PRUNED_ENGINE = "dense engine", "pruned engine"
DENSE_TORCH, PRUNED_TORCH = "dense PyTorch", "pruned PyTorch"
IN_TURN, ONE_BY_ONE = "all contestants in turn", "one contestant after the other, for they do not fit together"
ENGINE_MEMORY = 2.0
"""Memory of an engine over its files: ONNX Runtime keeps weights once as they are and once packed for its kernels."""
FREE_SHARE = 0.8
"""Of the memory that is free, what contestants may take."""


@dataclass(frozen=True)
class BenchOptions:
    """How long to measure.

    Attributes:
        rounds: every contestant is timed once per round, in a random order.
        warm_up: rounds that are not counted.
        budget_s: stop after so many seconds, but not before three rounds.
        offload: where the weights of denoisers in PyTorch are, see ``f3prune.core.choices.OFFLOADS``; on a GPU alone.
    """

    rounds: int = 20
    warm_up: int = 2
    budget_s: float = 60.0
    offload: str = "none"


def bench(
    run: RunDirectory, options: BenchOptions | None = None, reporter: Reporter = SILENT, again: bool = True
) -> tuple[dict[str, Any], bool]:
    """Time one denoiser call on recorded inputs; the dense engine is built where it is missing.

    Args:
        run: built.
        options: how long to measure.
        reporter: of progress.
        again: measure even if the run holds a measurement of the same engines.

    Returns:
        The content of ``bench.json``, and whether it was measured now.

    Raises:
        ArtifactError: an earlier step is missing, altered or stale.
        BackendError: the engine cannot run here.
        InputError: ``offload`` makes no sense on this machine.
    """
    options = options or BenchOptions()
    check_offload(options.offload, pick_device())
    if lazy(options.offload, pick_device()):
        raise InputError(
            "`offload` 'layers' without a GPU reads weights from their files at every call, and timing that times the "
            "disk: leave it out; contestants that do not fit together are timed one after the other"
        )
    state = RunState.of(run)
    built = run.require_current(BUILD_STEP["pruned"])
    dense = ensure_dense_engine(run, reporter)
    recipe = Manifest(
        "bench",
        {
            "calibrate": state.calibration.digest,
            "pruned": run.require_current("pruned").digest,
            BUILD_STEP["pruned"]: built.digest,
            BUILD_STEP["dense"]: dense.digest,
        },
        {
            "version": VERSION,
            "rounds": options.rounds,
            "warm_up": options.warm_up,
            "budget_s": options.budget_s,
            **({"offload": options.offload} if options.offload != "none" else {}),
            "machine": machine(),
        },
        package_versions("torch", "diffusers"),
    )
    if again:
        run.forget("bench")

    def make(scratch: Path) -> dict[str, Any]:
        result = _measure(state, built, options, reporter)
        (scratch / FILE).write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return {}

    _, made = run.perform(recipe, make, files=(FILE,))
    return parse_json(run.content("bench", FILE)), made


def ensure_dense_engine(run: RunDirectory, reporter: Reporter = SILENT) -> Manifest:
    """The dense model's engine, made like the pruned one (same precision, same backend) where it is missing.

    Raises:
        ArtifactError: the pruned model was not exported and built.
    """
    graph, engine = run.require_current(EXPORT_STEP["pruned"]), run.require_current(BUILD_STEP["pruned"])
    options = {name: value for name, value in engine.options.items() if name != "device"}
    export(run, from_json_values(ExportConfig, graph.options), "dense", reporter)
    return build(run, BuildConfig.from_json(json.dumps(options)), "dense", reporter)[0]


def _measure(state: RunState, built: Manifest, options: BenchOptions, reporter: Reporter) -> dict[str, Any]:
    device = pick_device()
    dtype = str(built.facts["dtype"]) if device.type == "cuda" else "fp32"
    calls = state.calls()
    call = calls[len(calls) // 2]
    inputs = {**call.on(device, torch_dtype(dtype)), "return_dict": False}
    groups = [tuple(_OPENERS)] if fit_together(state, dtype, device) else [(name,) for name in _OPENERS]
    share = replace(options, budget_s=options.budget_s / len(groups))
    seconds: dict[str, list[float]] = {}
    with reporter.task("measuring", total=len(groups) * (options.rounds + options.warm_up)) as advance:
        for group in groups:
            with contextlib.ExitStack() as stack:
                contestants = {}
                for name in group:
                    denoiser = stack.enter_context(_OPENERS[name](state, device, dtype, options.offload))
                    contestants[name] = state.strategy.timed(denoiser, call)
                    del denoiser
                seconds |= alternate(contestants, inputs, share, device, advance)
            del contestants
            give_back()
    rows = {name: summary(values) for name, values in seconds.items()}
    return {
        "version": VERSION,
        "what": state.strategy.timing if len(groups) == 1 else state.strategy.timing.replace(IN_TURN, ONE_BY_ONE),
        "unit": state.strategy.unit,
        "batch": next(int(v.shape[0]) for v in call.arguments.values() if torch.is_tensor(v) and v.ndim),
        "timestep": call.timestep,
        "backend": built.facts["backend"],
        "engine_dtype": built.facts["dtype"],
        "torch_dtype": dtype,
        "machine": machine(),
        "seconds": rows,
        "speedup": {
            "engine": rows[DENSE_ENGINE]["median"] / rows[PRUNED_ENGINE]["median"],
            "torch": rows[DENSE_TORCH]["median"] / rows[PRUNED_TORCH]["median"],
        },
    }


def fit_together(state: RunState, dtype: str, device: torch.device) -> bool:
    """Whether both engines and both denoisers in PyTorch have room at the same time, by the size of their files."""
    width = torch_dtype(dtype).itemsize
    dense = int(state.calibration.facts["parameters"])
    pruned = sum(state.run.require("pruned").facts["parameters"])
    engines = sum(sum(state.run.require(step).facts["bytes"]) for step in BUILD_STEP.values())
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return (dense + pruned) * width + ENGINE_MEMORY * engines < FREE_SHARE * free


@contextlib.contextmanager
def _pruned_engine(state: RunState, device: torch.device, dtype: str, offload: str) -> Iterator[Any]:
    del device, dtype, offload
    with engine_denoiser(state, "pruned") as engine:
        yield engine


@contextlib.contextmanager
def _dense_engine(state: RunState, device: torch.device, dtype: str, offload: str) -> Iterator[Any]:
    del device, dtype, offload
    with engine_denoiser(state, "dense") as engine:
        yield engine


@contextlib.contextmanager
def _dense_torch(state: RunState, device: torch.device, dtype: str, offload: str) -> Iterator[Any]:
    yield on_device(load_variant(state, "dense", 0, 1, dtype=dtype), device, offload)


@contextlib.contextmanager
def _pruned_torch(state: RunState, device: torch.device, dtype: str, offload: str) -> Iterator[Any]:
    yield on_device(pruned_torch(state, None, dtype), device, offload)


_OPENERS: dict[str, Callable[[RunState, torch.device, str, str], contextlib.AbstractContextManager[Any]]] = {
    DENSE_ENGINE: _dense_engine,
    PRUNED_ENGINE: _pruned_engine,
    DENSE_TORCH: _dense_torch,
    PRUNED_TORCH: _pruned_torch,
}


def alternate(
    contestants: Mapping[str, Callable[..., Any]],
    inputs: Mapping[str, Any],
    options: BenchOptions,
    device: torch.device,
    advance: Callable[[], None],
) -> dict[str, list[float]]:
    """Seconds of every call, by contestant: one timed call each per round, in a seeded random order.

    A contestant waits first: the threads of the one before it keep spinning for less than 0.05 s and would take cores
    from it. Then a quick one makes an untimed call, as it would in a denoising loop.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    started = time.monotonic()
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.no_grad():
            for number in range(options.warm_up + options.rounds):
                for name in order.sample(names, len(names)):
                    time.sleep(REST_S)
                    elapsed = _time(contestants[name], inputs, device)
                    if elapsed < QUICK_S:
                        elapsed = _time(contestants[name], inputs, device)
                    if number >= options.warm_up:
                        seconds[name].append(elapsed)
                advance()
                measured = number + 1 - options.warm_up
                if measured >= 3 and time.monotonic() - started > options.budget_s:
                    break
    finally:
        if collecting:
            gc.enable()
    return seconds


def _time(denoise: Callable[..., Any], inputs: Mapping[str, Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    denoise(**inputs)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def summary(values: list[float]) -> dict[str, float]:
    """Median, quartiles, least and number of some durations in seconds."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "quartile_1": low, "quartile_3": high, "min": min(values), "runs": len(values)}


def machine() -> dict[str, Any]:
    """What was measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
