"""What every benchmark records: the machine, the versions, peak memory of a process, medians of alternating runs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "diffusers", "onnx", "onnxruntime-gpu", "openvino", "tensorrt_rtx_cu12")


def environment() -> dict[str, Any]:
    """The machine and the versions of what was measured."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


QUICK_S = 5.0
REST_S = 0.1


def _time(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, dict[str, float]]:
    """Time several contenders in turn, so that a slow spell of the machine hits all of them.

    Each waits first: the threads of the contender before it keep spinning for less than 0.05 s and would take cores
    from it. Then a quick one makes an untimed call, as it would in a denoising loop.

    Returns:
        Seconds per contender: median, first and third quartile.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(rounds + warm_up):
        for name, run in runs.items():
            time.sleep(REST_S)
            seconds = _time(run)
            if seconds < QUICK_S:
                seconds = _time(run)
            if round_number >= warm_up:
                times[name].append(seconds)
    summary = {}
    for name, seconds in times.items():
        low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
        summary[name] = {"median": middle, "q1": low, "q3": high}
    return summary


def peak_of(arguments: list[str]) -> dict[str, Any]:
    """Run ``python arguments…`` and read its wall time, its peak resident memory and the JSON of its last line.

    Peak memory is the largest sum over the process and its children, sampled ten times a second.
    """
    import psutil

    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    watched = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(p.memory_info().rss for p in family))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    output = process.stdout.read() if process.stdout is not None else ""
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} failed with exit code {process.returncode}")
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gb": round(peak / 1e9, 2),
        **(json.loads(lines[-1]) if lines else {}),
    }


def write(path: str | None, result: Mapping[str, Any]) -> None:
    """Print a result as JSON, and write it to ``path`` when given."""
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
