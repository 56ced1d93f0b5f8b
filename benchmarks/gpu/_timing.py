"""Times on the device, contenders in turn; the card; operations counted while they run."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], object]


def in_turn(runs: Mapping[str, Run], device: str, rounds: int, left: Callable[[], float]) -> dict[str, dict[str, Any]]:
    """Time contenders in turn, so that a change of the card's clocks meets all of them. They must be warm.

    Args:
        runs: contenders by name.
        device: ``cuda`` is timed by events on its stream, anything else by the wall clock.
        rounds: at most so many.
        left: seconds left; a round that may not end in time is not begun.

    Returns:
        Per contender ``median``, ``q1`` and ``q3`` in seconds, and ``rounds``.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    longest = 0.0
    for _ in range(rounds):
        if left() < longest * 1.2 + 1:
            break
        started = time.perf_counter()
        for name, run in runs.items():
            times[name].append(once(run, device))
        longest = max(longest, time.perf_counter() - started)
    return {name: summary(seconds) for name, seconds in times.items() if seconds}


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {"median": middle, "q1": low, "q3": high, "rounds": len(seconds)}


def once(run: Run, device: str) -> float:
    """Seconds of one run."""
    if device != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000


def repeated(run: Run, device: str, rounds: int = 20, warm_up: int = 3) -> dict[str, Any]:
    """Warm up, then time one contender alone."""
    for _ in range(warm_up):
        run()
    return summary([once(run, device) for _ in range(rounds)])


@contextlib.contextmanager
def attention_by(backend: str) -> Iterator[None]:
    """Prefer one kernel for ``scaled_dot_product_attention``, and take others where it refuses."""
    if backend == "math":
        with sdpa_kernel(SDPBackend.MATH):
            yield
        return
    first = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
    }[backend]
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel([first, *(other for other in others if other != first)], set_priority=True):
        yield


def count_flops(run: Run, device: str) -> int:
    """Floating-point operations of all matrix products, convolutions and attention kernels of one run."""
    with FlopCounterMode(display=False) as counter, contextlib.ExitStack() as stack:
        if device != "cuda":  # the counter knows the fused kernels of GPUs only
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        run()
    return int(counter.get_total_flops())


def card(device: str) -> dict[str, Any]:
    """The card, its driver, and what it reaches: copied bytes and bfloat16 products."""
    if device != "cuda":
        return {"card": "none", "torch": torch.__version__}
    properties = torch.cuda.get_device_properties(0)
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copied = repeated(lambda: target.copy_(source), device)["median"]
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device=device) for _ in range(2))
    multiplied = repeated(lambda: a @ b, device)["median"]
    return {
        "card": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "driver": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "torch": torch.__version__,
        "copy_gb_s": round(2 * source.numel() / copied / 1e9),
        "bf16_tflop_s": round(2 * 8192**3 / multiplied / 1e12),
    }


def driver() -> str:
    """Version of the NVIDIA driver."""
    import subprocess

    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def kernels(run: Run, device: str, most: int = 14) -> list[dict[str, Any]]:
    """Where the time of one run goes: kernels by name, the longest first, in milliseconds."""
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CUDA] if device == "cuda" else [activity.CPU]
    with torch.profiler.profile(activities=kinds) as profile:
        run()
        if device == "cuda":
            torch.cuda.synchronize()
    found = []
    for event in profile.key_averages():
        micros = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        if micros > 0:
            found.append({"kernel": event.key[:110], "calls": event.count, "ms": round(micros / 1000, 3)})
    found.sort(key=lambda row: -float(row["ms"]))
    return found[:most]
