"""``f3prune reuse`` and ``generate --reuse``: chosen by measurement, kept, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import f3prune

from f3prune.core.errors import ArtifactError
from f3prune.core.run_directory import RunDirectory


@pytest.fixture(scope="module")
def run(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reuse") / "run"
    f3prune("calibrate", tiny_pipeline, "-o", path, "--steps", 6, "--num-prompts", 1)
    for command in (["prune", path, "--alpha", "0.5"], ["export", path], ["build", path]):
        assert f3prune(*command).code == 0
    return path


def test_steps_are_chosen_kept_and_used(run: Path, tmp_path: Path) -> None:
    video = tmp_path / "sheet.png"
    early = f3prune("generate", run, "--prompt", "a 1 moving up", "-o", video, "--reuse")
    assert early.code != 0
    assert f"f3prune reuse {run}" in early.err
    made = f3prune("reuse", run, "--skip", "0.34")
    assert made.code == 0, made.err
    assert made.out.startswith("2 of 6 steps are skipped")
    assert "up to date" in f3prune("reuse", run, "--skip", "0.34").out
    facts = RunDirectory.open(run).require("reuse").facts
    assert len(facts["skipped"]) == 2
    assert {count for count, _ in facts["tried"]} == {2}
    assert f3prune("generate", run, "--prompt", "a 1 moving up", "-o", tmp_path / "full.png").code == 0
    assert f3prune("generate", run, "--prompt", "a 1 moving up", "-o", video, "--reuse").code == 0
    assert video.read_bytes() != (tmp_path / "full.png").read_bytes()
    other = f3prune("generate", run, "--prompt", "a 1 moving up", "-o", video, "--reuse", "--steps", 4)
    assert "chosen for 6 steps, and this is 4" in other.err


def test_a_quality_decides_how_many(run: Path) -> None:
    loose = f3prune("reuse", run, "--min-psnr", "1")
    assert loose.code == 0, loose.err
    assert loose.out.startswith("3 of 6 steps are skipped")
    strict = f3prune("reuse", run, "--min-psnr", "99")
    assert strict.code != 0
    assert "no step can be skipped at 99 dB" in strict.err


def test_an_altered_choice_is_not_used(run: Path) -> None:
    f3prune("reuse", run, "--skip", "0.5")
    file = run / "reuse.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "skipped": [2]}))
    with pytest.raises(ArtifactError, match="was altered"):
        RunDirectory.open(run).require("reuse")
    bad = f3prune("reuse", run, "--skip", "1.5")
    assert bad.code == 2
    assert "between 0 and 1" in bad.err
