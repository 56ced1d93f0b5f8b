"""A denoiser without a pipeline: everything but video works, and says that conditioning was synthetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import f3prune

from f3prune.testing import tiny_denoiser


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("denoiser")
    tiny_denoiser("latte").save_config(folder)
    return folder


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "alone"
    arguments = ("--steps", 2, "--alpha", 1, "--random-weights", "--seed", 3, "--height", 8)
    outcome = f3prune("run", config, "-o", run, *arguments)
    assert outcome.code == 0, outcome.err
    return run


def test_it_is_recorded_as_synthetic(run: Path) -> None:
    facts = json.loads((run / "manifest.json").read_text())["steps"]["calibrate"]["facts"]
    assert facts["synthetic"]
    assert facts["settings"]["height"] == 8
    assert "synthetic" in (run / "report.html").read_text()
    assert not (run / "video.mp4").exists()


def test_the_softmax_of_pruned_sites_is_gone(run: Path) -> None:
    def softmaxes(step: str) -> int:
        entry = json.loads((run / step / "manifest.json").read_text())["steps"]
        (facts,) = [entry["facts"] for entry in entry.values()]
        return facts["graphs"][0]["facts"]["operators"].get("Softmax", 0)

    assert softmaxes("dense/onnx") - softmaxes("onnx") == 2


def test_generate_says_why_it_cannot(run: Path, tmp_path: Path) -> None:
    outcome = f3prune("generate", run, "--prompt", "x", "-o", tmp_path / "o.mp4")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "is a denoiser alone" in outcome.err
    assert not (tmp_path / "o.mp4").exists()


def test_sizes_that_cannot_be_are_one_line(config: Path, tmp_path: Path) -> None:
    outcome = f3prune("calibrate", config, "-o", tmp_path / "r", "--random-weights", "--height", 7, "--steps", 1)
    assert outcome.code == 2
    assert outcome.err == "f3prune: --height is 7, expected a multiple of 2: try 6 or 8\n"
    assert not (tmp_path / "r").exists()


def test_random_weights_follow_the_seed(config: Path) -> None:
    import torch

    from f3prune.pipelines.loading import load_denoiser
    from f3prune.pipelines.sources import resolve

    weights = [load_denoiser(resolve(str(config), True, seed)).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert resolve(str(config), True, 1).digest() != resolve(str(config), True, 2).digest()
