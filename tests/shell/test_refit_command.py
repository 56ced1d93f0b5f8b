"""``f3prune prune --refit``: what is fitted reaches every step, is kept, and is refused when altered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import f3prune

from f3prune.calibration import Masks, load_pruned, prune_denoiser
from f3prune.core.run_directory import RunDirectory
from f3prune.pipelines.loading import load_denoiser
from f3prune.steps._state import RunState
from f3prune.steps.refit import refit_of


@pytest.fixture(scope="module")
def run(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("refit") / "run"
    assert f3prune("calibrate", tiny_pipeline, "-o", path, "--steps", 3, "--num-prompts", 1).code == 0
    return path


def test_the_whole_way(run: Path, tmp_path: Path) -> None:
    assert f3prune("prune", run, "--alpha", "0.5").code == 0
    plain = Masks.load(run / "masks.json")
    made = f3prune("prune", run, "--alpha", "0.5", "--refit", "--refit-generations", 1)
    assert made.code == 0, made.err
    assert "refitted on 1 generation of" in made.out
    assert "up to date" in f3prune("prune", run, "--alpha", "0.5", "--refit", "--refit-generations", 1).out
    masks = Masks.load(run / "masks.json")
    assert masks.refit
    assert plain.refit == ""
    state = RunState.of(RunDirectory.open(run))
    fitted = refit_of(state, masks)
    baked = prune_denoiser(load_denoiser(state.source, torch.float32), masks, refit=fitted)
    stored = load_pruned(run / "pruned")
    for name, weight in baked.state_dict().items():
        torch.testing.assert_close(weight, stored.state_dict()[name], atol=1e-6, rtol=1e-5)
    for command in ("export", "build"):
        assert f3prune(command, run).code == 0
    video = tmp_path / "video.png"
    assert f3prune("generate", run, "--prompt", "a 1 moving up", "-o", video).code == 0
    assert f3prune("check", run).code == 0
    assert f3prune("report", run).code == 0
    assert "refitted on 1 generation of" in (run / "report.html").read_text(encoding="utf-8")
    judged = f3prune("evaluate", run, "--samples", 2, "--runner", "torch")
    assert judged.code == 0, judged.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--refit-generations", "2"], "--refit-generations is for --refit"),
        (["--refit", "--granularity", "frame-pair"], "--refit is for layers and heads"),
        (["--refit", "--mode", "drop"], "nothing to refit"),
    ],
)
def test_refused_in_one_line(run: Path, options: list[str], message: str) -> None:
    bad = f3prune("prune", run, "--alpha", "0.5", *options)
    assert bad.code == 2
    assert message in bad.err
    assert bad.err.count("\n") == 1


def test_a_refit_that_was_refused_does_not_stand_in_anothers_way(run: Path) -> None:
    assert f3prune("prune", run, "--alpha", "0.5", "--mode", "drop", "--refit").code == 2
    made = f3prune("prune", run, "--alpha", "1", "--refit", "--refit-generations", 1)
    assert made.code == 0, made.err
