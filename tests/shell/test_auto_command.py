"""``f3prune prune --mode auto``: what it chose from, and what videos said about the best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import f3prune

from f3prune.calibration import Masks
from f3prune.core.run_directory import RunDirectory
from f3prune.steps._state import RunState
from f3prune.steps.last_word import video_psnr


@pytest.fixture(scope="module")
def run(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("auto") / "run"
    assert f3prune("calibrate", tiny_pipeline, "-o", path, "--steps", 3, "--num-prompts", 1).code == 0
    return path


def test_the_best_videos_are_taken(run: Path) -> None:
    made = f3prune("prune", run, "--mode", "auto", "--alpha", "0.3", "--candidates", "local,drop,window:1")
    assert made.code == 0, made.err
    assert "the best was taken" in " ".join(made.out.split())
    (file,) = run.glob("scores/auto-*/choices.json")
    psnr = json.loads(file.read_text())["psnr"]
    assert 2 <= len(psnr) <= 3
    masks = Masks.load(run / "masks.json")
    (own,) = video_psnr(RunState.of(RunDirectory.open(run)), [masks])
    assert own == pytest.approx(max(psnr), abs=1e-6)
    again = f3prune("prune", run, "--mode", "auto", "--alpha", "0.3", "--candidates", "local,drop,window:1")
    assert "up to date" in again.out


def test_layers_that_are_dropped_whole_need_no_refit(run: Path) -> None:
    options = ("--mode", "auto", "--alpha", "0.3", "--candidates", "drop", "--refit", "--refit-generations", 1)
    made = f3prune("prune", run, *options)
    assert made.code == 0, made.err
    masks = Masks.load(run / "masks.json")
    assert masks.refit == ""
    assert {m.stand_in.spec for m in masks.stages[0].sites.values() if not m.untouched} == {"drop"}
