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


def script(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    monkeypatch.syspath_prepend(str(HOME / "benchmarks"))
    spec = importlib.util.spec_from_file_location(name, HOME / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def study_page(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script(monkeypatch, "study_page")


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


def test_what_prunes_the_same_is_shown_once_with_the_first_score(study_page: Any) -> None:
    rows = [
        {"masks": masks, "config": {"score": score}}
        for masks, score in (("a", "aas"), ("b", "leave-one-out"), ("b", "greedy"), ("a", "magnitude"))
    ]
    assert study_page.distinct(rows) == [(rows[0], "AAS, weight magnitude"), (rows[1], "leave-one-out, greedy")]


def test_the_page_names_the_rows_that_are_missing(study_page: Any) -> None:
    one, two = (
        {"config": {"alpha": 0.5, "granularity": "head", "mode": "drop", "score": score}} for score in ("aas", "greedy")
    )
    data = {"digits": {"mode": [one, two]}, "digits-latte": {"mode": [one]}, "digits-cogvideo": {}}
    assert study_page.left_out(data) == ["zoo:digits-latte: heads by greedy, drop (mode)"]


def test_scores_measured_again_leave_those_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    study = script(monkeypatch, "study")
    path, configs = tmp_path / "study.json", study.seeds_configs()
    rows = [
        {"seed": seed, "config": study.json_of(config), "psnr": 1}
        for seed in ("all", 1, 0)
        for config in reversed(configs)
        if config.score != "greedy"
    ]
    study.add_rows(path, "digits", "seeds", rows, configs)
    new = [{"seed": 0, "config": study.json_of(config), "psnr": 2} for config in configs if config.score != "aas"]
    study.add_rows(path, "digits", "seeds", new, configs)
    found = json.loads(path.read_text(encoding="utf-8"))["digits"]["seeds"]
    first = [row for row in found if row["seed"] == 0]
    assert [row["config"] for row in first] == [study.json_of(config) for config in configs]
    assert [row["psnr"] for row in first] == [1 if row["config"]["score"] == "aas" else 2 for row in first]
    assert [(row["seed"], row["config"]["score"]) for row in found[len(first) :]] == [
        (seed, "aas") for seed in (1, "all") for _ in range(2)
    ]


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
