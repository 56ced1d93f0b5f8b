"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
GENERATE = ("prune_a_pipeline.py", "let_auto_choose.py", "judge_quality.py", "engine_in_a_pipeline.py")
ARGUMENTS = {script: ["--steps", "2"] for script in GENERATE}
SAYS = {
    "prune_a_pipeline.py": "3 of 6 layers are pooled:2:1",
    "choose_a_replacement.py": "transformer_blocks.1.attn1",
    "let_auto_choose.py": "of the sites' multiplications saved",
    "judge_quality.py": "dynamic    pruned minus dense",
    "export_and_check.py": "batch 1: relative L2",
    "engine_in_a_pipeline.py": "largest difference of a pixel",
    "your_own_mode.py": "1 layers see the first frame",
}


def test_every_example_is_listed_and_short() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert {script.name for script in scripts} == SAYS.keys()
    for script in scripts:
        assert f"[{script.name}]({script.name})" in listed
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 60


QUICK = ("choose_a_replacement.py", "your_own_mode.py")


@pytest.mark.parametrize(
    "script",
    [pytest.param(s, marks=[] if s in QUICK else pytest.mark.slow(reason="generates or exports")) for s in SAYS],
)
def test_an_example_runs(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / script), *ARGUMENTS.get(script, [])]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert SAYS[script] in done.stdout
    for line in done.stdout.splitlines():
        if "relative L2" in line or "difference" in line:
            assert float(line.split()[-1]) < 1e-3
