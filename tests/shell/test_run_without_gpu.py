"""``f3prune run`` for a GPU that this machine does not have."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from command_line import f3prune

from f3prune.core.run_directory import RunDirectory
from f3prune.engines.backends import find_gpu

pytestmark = [
    pytest.mark.slow(reason="a whole run with two builds of TensorRT-RTX"),
    pytest.mark.skipif(not isinstance(find_gpu(), str), reason="this machine has a GPU and a driver"),
]


def test_a_run_for_another_machine_ends_well_and_says_what_is_left(tiny_pipeline: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    path = tmp_path / "a run"
    size = ("--num-frames", 9, "--height", 32, "--width", 48, "--steps", 2, "--num-prompts", 1)
    outcome = f3prune("run", tiny_pipeline, "-o", path, "--alpha", 0.5, *size, "--backend", "tensorrt-rtx")
    assert outcome.code == 0, outcome.err
    said = " ".join(re.sub(r"[│┌┐└┘─]", " ", outcome.out).split())
    assert "is built, and does not run here: this machine has no NVIDIA driver" in said
    assert "graph (onnxruntime, bf16 as fp32) against pruned (PyTorch fp32); whole video PSNR" in said
    run = RunDirectory(path)
    assert run.require("engine").facts["dtype"] == "bf16"
    assert (path / "dense" / "engine" / "denoiser.engine").is_file()
    assert (path / "report.html").is_file()
    # What is left are commands that exist; each runs here as far as the engine.
    left = re.findall(r"f3prune (check|generate|bench|report) (.*?)(?= f3prune | report )", said)
    assert [command for command, _ in left] == ["check", "generate", "bench", "report"]
    needs_gpu = {"generate", "bench"}
    for command, rest in left:
        words = [word if word != "video.mp4" else str(tmp_path / word) for word in shlex.split(rest)]
        again = f3prune(command, *words, *(["--no-videos"] if command == "check" else []))
        assert again.code == (2 if command in needs_gpu else 0), again.err
        if command in needs_gpu:
            assert "needs an NVIDIA GPU" in again.err
        if command == "check":
            assert "check passed for the graph, in ONNX Runtime; the engine itself did not run: this" in again.out
    written = json.loads((path / "check.json").read_text())
    assert written["stands_in"].startswith("this machine has no NVIDIA driver")
