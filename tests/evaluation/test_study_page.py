"""docs/fidelity.md says what the study's results say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study_page() -> Any:
    spec = importlib.util.spec_from_file_location("study_page", HOME / "benchmarks" / "study_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_results(study_page: Any) -> None:
    data = json.loads((HOME / "benchmarks" / "results" / "study.json").read_text(encoding="utf-8"))
    assert study_page.page(data) == (HOME / "docs" / "fidelity.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("metric", ["prompt_digit", "prompt_motion", "fvd"])
def test_kept_quality_needs_all_three(study_page: Any, metric: str) -> None:
    kept = {name: {"verdict": "undecided"} for name in ("prompt_digit", "prompt_motion", "fvd")}
    assert study_page.keeps_quality({"difference": kept | {metric: {"verdict": "better"}}})
    assert not study_page.keeps_quality({"difference": kept | {metric: {"verdict": "worse"}}})


def test_the_tables_of_other_pages_are_those_of_the_results() -> None:
    script = HOME / "benchmarks" / "performance_page.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_all_seeds_lose_one_seed_does_not_save(study_page: Any) -> None:
    good, bad = (
        {name: {"verdict": verdict} for name in ("prompt_digit", "prompt_motion", "fvd")}
        for verdict in ("undecided", "worse")
    )
    row = {"config": {"alpha": 0.5, "score": "aas"}, "difference": good}
    assert study_page.stays_good({"seeds": [{**row, "seed": "all"}]}, row)
    assert study_page.stays_good({"seeds": [{**row, "seed": 1, "difference": bad}]}, row)
    assert not study_page.stays_good({"seeds": [{**row, "seed": "all", "difference": bad}]}, row)
    other = {**row, "seed": "all", "difference": bad, "config": {"alpha": 0.35, "score": "aas"}}
    assert study_page.stays_good({"seeds": [other]}, row)
