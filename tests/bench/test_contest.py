"""A contest of a tiny denoiser: who agrees with dense, who is listed with a reason, what is made and kept."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from f3prune.bench.contenders import OpenVino
from f3prune.bench.contenders import openvino as openvino_contender
from f3prune.bench.contest import ContestOptions, contest, generation
from f3prune.bench.contest.contest import FILE
from f3prune.bench.contest.sweep import FOLDER
from f3prune.calibration import PruneConfig
from f3prune.core.errors import ArtifactError
from f3prune.core.run_directory import RunDirectory
from f3prune.pipelines.pipeline_runs import GenerationSettings
from f3prune.steps.build import build
from f3prune.steps.calibrate import CalibrateOptions, calibrate
from f3prune.steps.export import export
from f3prune.steps.prune import prune
from f3prune.testing import tiny_denoiser
from tests.shell.command_line import f3prune

pytestmark = pytest.mark.slow(reason="builds and times every contender")

KINDS = (
    "pytorch",
    "pytorch-pruned",
    "pyramid-attention-broadcast",
    "faster-cache",
    "first-block-cache",
    "mag-cache",
    "onnxruntime",
    "openvino",
    "engine",
)
"""All but torch.compile, which takes long."""
OPTIONS = ContestOptions(
    KINDS, alphas=(0.5, 0.6, 1.0), granularities=("layer",), modes=("local",), skips=(0.34, 0.9), rounds=3
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("contest")
    tiny_denoiser("wan").save_config(folder / "model")  # type: ignore[operator]
    made = RunDirectory.create(folder / "run")
    options = CalibrateOptions(str(folder / "model"), settings=SETTINGS, random_weights=True)
    calibrate(made, options)
    prune(made, PruneConfig(0.5, score="aas"))
    export(made)
    build(made)
    return made


SETTINGS = GenerationSettings(steps=6, num_frames=3, height=4, width=6)


@pytest.fixture(autouse=True, scope="module")
def settle_quickly() -> Iterator[None]:
    """Times are not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "AT_LEAST_S", 0.0)
        yield


@pytest.fixture(scope="module")
def result(run: RunDirectory) -> dict[str, Any]:
    return contest(run, OPTIONS)


def row(result: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [row for row in result["rows"] if row["name"] == name]
    return dict(found)


def test_dense_contenders_compute_the_same(result: dict[str, Any]) -> None:
    assert row(result, "PyTorch")["psnr"] is None
    for name in ("ONNX Runtime", "f3prune α=0"):
        assert row(result, name)["psnr"] > 100, name
    # Never skipping anything, it is the dense model.
    assert row(result, "FirstBlockCache, 0.05")["psnr"] is None


def test_openvino_computes_the_same(result: dict[str, Any]) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed: pip install openvino")
    assert row(result, "OpenVINO")["psnr"] > 90
    pruned = row(result, "f3prune α=0.5 layer local")["psnr"]
    assert row(result, "OpenVINO α=0.5 layer local")["psnr"] == pytest.approx(pruned, abs=0.1)
    assert row(result, "PyTorch α=0.5 layer local")["psnr"] == pytest.approx(pruned, abs=0.1)
    assert pruned < 80


def test_caches_differ_from_dense(result: dict[str, Any]) -> None:
    for name in ("Pyramid Attention Broadcast, every 2", "FasterCache, every 2", "MagCache, 0.24"):
        found = row(result, name)
        assert found["status"] == "measured", found
        assert found["psnr"] is not None, name
        assert found["psnr"] < 80, name
    assert len(row(result, "MagCache, 0.24")["facts"]["mag_ratios"]) == 6


def test_skipped_steps_are_the_same_for_all(result: dict[str, Any]) -> None:
    skipping = [row for row in result["rows"] if row["status"] == "measured" and "skipped" in row["name"]]
    assert len({tuple(row["facts"]["skipped_steps"]) for row in skipping}) == 1
    for found in skipping:
        assert len(found["facts"]["skipped_steps"]) == 2
    assert 10 < row(result, "f3prune α=0, 34% of steps skipped")["psnr"] < 100


def test_what_is_not_there_is_listed_with_its_reason(result: dict[str, Any]) -> None:
    listed = {row["name"]: row for row in result["rows"] if row["status"] != "measured"}
    import torch

    if not torch.cuda.is_available():
        assert "needs a GPU" in listed["ONNX Runtime CUDA"]["reason"]
    if importlib.util.find_spec("tensorrt") is None:
        assert "pip install 'f3prune[tensorrt]'" in listed["f3prune TensorRT α=0"]["reason"]
    assert listed.pop("f3prune α=0, 90% of steps skipped")["reason"] == "90% of 6 steps cannot be skipped"
    assert all(row["status"] == "absent" for row in listed.values())


def test_every_turn_counts_and_every_time_is_there(result: dict[str, Any]) -> None:
    for found in result["rows"]:
        if found["status"] == "measured":
            assert found["denoising"]["runs"] == found["generation"]["runs"] == 3
            assert 0 < found["denoising"]["min"] < found["generation"]["median"]
    assert result["calls"] == result["steps"] == 6
    others = {row["name"] for row in result["rows"] if row["status"] == "measured" and not row["own"]}
    assert {match["other"] for match in result["equal_quality"]} == others


def test_matrix_products_stand_beside_every_time(result: dict[str, Any]) -> None:
    rate = result["rates"]["flops"]["fp32"]
    for found in result["rows"]:
        if found["status"] == "measured":
            products = found["products"]
            assert (products["allow"] > 1) == found["pruned"], found["name"]
            calls = result["calls"] * (1 - found["facts"].get("skipped_share", 0))
            seconds = products["gflop_per_call"] * 1e9 * calls / rate
            assert products["seconds"] == pytest.approx(seconds)
            assert products["share"] == pytest.approx(seconds / found["denoising"]["median"])
    half, full = (row(result, f"f3prune α={alpha} layer local")["products"]["allow"] for alpha in ("0.5", "1"))
    assert full > half > 1


def test_equal_masks_are_built_once_and_kept(run: RunDirectory, result: dict[str, Any]) -> None:
    # Of two sites, α=0.5 and α=0.6 prune the same one, which is the run's own engine.
    engines = [row["name"] for row in result["rows"] if row["own"] and row["status"] == "measured"]
    made = ["f3prune α=0", "f3prune α=0.5 layer local", "f3prune α=1 layer local"]
    assert engines == [*made, *(f"{name}, 34% of steps skipped" for name in made)]
    (folder,) = [path for path in (run.path / FOLDER).iterdir() if path.is_dir()]
    built = (folder / "engine" / "manifest.json").stat().st_mtime_ns
    again = contest(
        run, ContestOptions(("engine",), alphas=(1.0,), granularities=("head",), modes=("local",), skips=(), rounds=3)
    )
    assert row(again, "f3prune α=1 head local")["psnr"] == row(result, "f3prune α=1 layer local")["psnr"]
    assert (folder / "engine" / "manifest.json").stat().st_mtime_ns == built
    assert json.loads((run.path / FILE).read_text()) == again


def test_a_package_that_is_not_installed_is_listed_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shop:
        class strategy:  # noqa: N801
            one_graph = True

    monkeypatch.setattr(openvino_contender, "find_spec", lambda name: None)
    found = OpenVino().missing(Shop)  # type: ignore[arg-type]
    assert found is not None
    assert (found.status, "pip install openvino" in found.reason) == ("absent", True)


def test_a_run_without_an_engine_names_the_command(run: RunDirectory, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "engine")
    with pytest.raises(ArtifactError, match=r"make it with `build\(run='\S+'\)`"):
        contest(RunDirectory.open(tmp_path / "run"), OPTIONS)


def test_the_command_prints_a_table_and_draws(run: RunDirectory, tmp_path: Path) -> None:
    arguments = ("--contenders", "onnxruntime,engine", "--alphas", "1", "--granularity", "layer", "--mode", "local")
    files = ("--json", str(tmp_path / "c.json"), "--plot", str(tmp_path / "c.png"), "--rounds", "3", "--steps", "4")
    done = f3prune("bench", run.path, *arguments, *files)
    assert done.code == 0, done.err
    assert "f3prune α=1 layer local" in done.out
    assert "needs a GPU" in done.out or "CUDA" in done.out
    assert "hardest at equal PSNR: " in done.out
    assert json.loads((tmp_path / "c.json").read_text())["steps"] == 4
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
