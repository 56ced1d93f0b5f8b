"""This machine's own rates of matrix products, measured in under three seconds."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from f3prune.core.errors import InputError

GEMM_SHAPES = ((3360, 384, 1536), (3360, 1536, 384), (2048, 1024, 1024))
"""Rows, inner and columns of products as a denoiser's feed-forward makes them; the last one is square-ish."""
_BUDGET_S = 1.6


@dataclass(frozen=True)
class MachineRates:
    """Attributes:
    processor: name of what was measured, CPU or GPU.
    device: ``cpu`` or ``cuda``.
    threads: PyTorch's threads.
    flops: floating-point operations per second of matrix products, by dtype (``fp32``, ``fp16``): the best shape of the
        best library, so that no measured graph should pass it but by noise.
    measured: every single rate that the best was taken from.
    """

    processor: str
    device: str
    threads: int
    flops: Mapping[str, float]
    measured: Mapping[str, float]

    def flops_of(self, dtype: str) -> float:
        """Rate of matrix products in ``dtype``; bf16 has fp16's, and a CPU computes everything in fp32.

        Raises:
            InputError: unknown dtype.
        """
        if dtype not in {"fp32", "fp16", "bf16"}:
            raise InputError(f"`dtype` is {dtype!r}, expected fp32, fp16 or bf16")
        return self.flops.get("fp16" if dtype == "bf16" else dtype, self.flops["fp32"])


def measure_machine(device: torch.device | str = "cpu") -> MachineRates:
    """Measure matrix products on all cores, or on a GPU.

    On a CPU both PyTorch and ONNX Runtime multiply, and the faster one counts. Takes two to three seconds.
    """
    device = torch.device(device)
    trials: dict[str, tuple[float, Callable[[], object]]] = {}
    dtypes = {"fp32": torch.float32, **({"fp16": torch.float16} if device.type == "cuda" else {})}
    for name, dtype in dtypes.items():
        for shape in GEMM_SHAPES:
            label = "x".join(map(str, shape))
            trials[f"gemm {name} torch {label}"] = (_operations(shape), _torch_gemm(shape, dtype, device))
            if device.type == "cpu":
                trials[f"gemm {name} onnxruntime {label}"] = (_operations(shape), _onnxruntime_gemm(shape))
    budget = _BUDGET_S / len(trials)
    measured = {name: amount / _fastest(run, device, budget) for name, (amount, run) in trials.items()}
    return MachineRates(
        processor=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        device=device.type,
        threads=torch.get_num_threads(),
        flops={
            name: max(rate for trial, rate in measured.items() if trial.startswith(f"gemm {name} ")) for name in dtypes
        },
        measured=measured,
    )


def _operations(shape: tuple[int, int, int]) -> float:
    rows, inner, columns = shape
    return 2.0 * rows * inner * columns


def _torch_gemm(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    rows, inner, columns = shape
    left = torch.ones(rows, inner, dtype=dtype, device=device)
    right = torch.ones(inner, columns, dtype=dtype, device=device)
    out = torch.empty(rows, columns, dtype=dtype, device=device)
    return lambda: torch.mm(left, right, out=out)


def _onnxruntime_gemm(shape: tuple[int, int, int]) -> Callable[[], object]:
    """A product with a weight, which the runtime packs once as it does in an engine."""
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    rows, inner, columns = shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inner])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, columns])],
        [onnx.numpy_helper.from_array(np.ones((inner, columns), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    # Threads that go on spinning would take a core from the next trial.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.ones((rows, inner), np.float32))
    out = onnxruntime.OrtValue.ortvalue_from_shape_and_type([rows, columns], np.float32)
    binding.bind_ortvalue_output("y", out)
    return lambda: session.run_with_iobinding(binding)


def _fastest(run: Callable[[], object], device: torch.device, budget: float) -> float:
    """Seconds of the fastest of several calls, the first of which is not counted."""
    run()
    started, best, calls = time.perf_counter(), float("inf"), 0
    while calls < 2 or time.perf_counter() - started < budget:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        before = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - before)
        calls += 1
    return best


def _processor() -> str:
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count()} cores"
