"""``evaluate``, ``sweep`` and ``prune --alpha auto`` on a trained model: measured, resumed, refused in a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import f3prune

from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.run_directory import RunDirectory
from f3prune.quality.auto_alpha import Budget
from f3prune.quality.judging import JudgeOptions, Judging
from f3prune.quality.video_store import VideoStore
from f3prune.steps._state import RunState

SAMPLES = 34  # one more than a Fréchet distance of the zoo's 32 features needs
DIGIT_AND_MOTION = {"prompt_digit", "prompt_motion"}
FEW = ("--metrics", "psnr,dynamic,prompt_digit,prompt_motion")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quality") / "run"
    assert f3prune("calibrate", "zoo:digits-latte", "-o", path, "--steps", 2, "--num-prompts", 1).code == 0
    assert f3prune("prune", path, "--alpha", "0.5").code == 0
    return path


@pytest.mark.slow(reason="generates many videos")
def test_dense_and_pruned_are_compared_metric_by_metric(run: Path) -> None:
    first = f3prune("evaluate", run, "--samples", SAMPLES)
    assert first.code == 0, first.err
    data = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert data["dataset"] == {
        "name": "zoo:digits-latte",
        "root": None,
        "prompts": data["dataset"]["prompts"],
        "samples": SAMPLES,
        "real": 500,
    }
    assert {"psnr", "ssim", "dynamic", "prompt_digit", "prompt_motion", "fvd", "fid"} <= set(data["pruned"])
    assert "psnr" not in data["dense"]
    for name in ("dynamic", "fvd"):
        change = data["pruned"][name]["value"] - data["dense"][name]["value"]
        assert data["difference"][name]["value"] == pytest.approx(change, abs=1e-6)
    assert "up to date" in f3prune("evaluate", run, "--samples", SAMPLES).out


def test_an_interrupted_evaluation_goes_on_with_the_videos_it_has(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from f3prune.quality import variants

    made: list[int] = []
    real = variants.run_prompt

    def stop_at_third(*args: object, **kwargs: object) -> object:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(1)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(variants, "run_prompt", stop_at_third)
    arguments = ("evaluate", run, "--samples", 6, "--seed", 77, *FEW)
    assert f3prune(*arguments).code == 130
    counted: list[int] = []

    def count(*args: object, **kwargs: object) -> object:
        counted.append(1)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(variants, "run_prompt", count)
    assert f3prune(*arguments).code == 0
    assert len(counted) == 6 + 6 - 3


def test_alpha_auto_keeps_the_budget_and_says_what_it_tried(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    f3prune("calibrate", "zoo:digits-latte", "-o", other, "--steps", 2, "--num-prompts", 1)
    nothing = f3prune("prune", other, "--alpha", "auto", "--budget", "psnr>=59.9", "--samples", 2)
    assert nothing.code == 0, nothing.err
    assert "over the budget" in nothing.out
    assert RunDirectory.open(other).require("masks").options["alpha"] == 0.0
    everything = f3prune("prune", other, "--alpha", "auto", "--budget", "psnr>=0", "--samples", 2)
    assert "within the budget" in everything.out
    assert RunDirectory.open(other).require("masks").options["alpha"] == 1.0


@pytest.mark.slow(reason="builds an engine for every point")
def test_a_sweep_measures_engines_and_quality_side_by_side(run: Path) -> None:
    assert "f3prune build" in f3prune("sweep", run).err
    assert f3prune("export", run).code == 0
    assert f3prune("build", run).code == 0
    options = ("--alphas", "0.5,0.51", "--granularities", "layer", "--modes", "local,drop")
    options = (*options, "--samples", 2, "--rounds", 2, "--jobs", 2)
    made = f3prune("sweep", run, *options, *FEW)
    assert made.code == 0, made.err
    data = json.loads((run / "sweep.json").read_text(encoding="utf-8"))
    assert len(data["points"]) == 2  # 0.51 prunes what 0.5 does; two modes
    for point in data["points"]:
        assert point["speedup"] == pytest.approx(data["dense"]["seconds"]["median"] / point["seconds"]["median"])
        assert point["pruned"]["sites_pruned"] == point["pruned"]["sites"] * point["config"]["alpha"]
    assert any(point["pareto"] for point in data["points"])
    assert "up to date" in f3prune("sweep", run, *options, *FEW).out
    assert f3prune("evaluate", run, "--samples", 2, *FEW, "--runner", "engine").code == 0
    report = f3prune("report", run)
    assert report.code == 0, report.err
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Pareto" in page
    assert "Dynamic" in page or "dynamic" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dataset", "ucf101"), "--dataset and --root belong together"),
        (("--metrics", "fvd", "--prompts", "absent.txt"), "absent.txt"),
        (("--fvd", "absent.pt"), "--fvd absent.pt does not exist"),
        (
            ("--samples", 3),
            "fvd compares covariances of 32 features, for which 33 videos are needed, and --samples is 3",
        ),
        (("--metrics", "clipsim"), "clip"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(run: Path, arguments: tuple[object, ...], said: str) -> None:
    outcome = f3prune("evaluate", run, *arguments)
    assert outcome.code == 2, outcome.out
    assert outcome.err.count("\n") == 1
    assert said in outcome.err


@pytest.mark.parametrize(
    ("prompt", "judged"), [("a cat on a beach", set()), ("a 7", {"prompt_digit"}), ("a 7 moving up", DIGIT_AND_MOTION)]
)
def test_prompts_are_judged_by_what_they_name(run: Path, tmp_path: Path, prompt: str, judged: set[str]) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{prompt}\n", encoding="utf-8")
    judging = Judging(RunState.of(RunDirectory(run)), JudgeOptions(samples=2, prompts=prompts))
    assert set(judging.names) & DIGIT_AND_MOTION == judged


def test_a_dataset_without_videos_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "Archery").mkdir()
    outcome = f3prune("evaluate", run, "--dataset", "ucf101", "--root", tmp_path, "--samples", 2)
    assert outcome.code == 2
    assert str(tmp_path) in outcome.err


def test_real_videos_give_prompts_and_distances(run: Path, tmp_path: Path) -> None:
    import av
    import torch

    for name, shade in (("ApplyEyeMakeup", 40), ("Archery", 180)):
        (tmp_path / name).mkdir()
        for k in range(3):
            with av.open(str(tmp_path / name / f"v_{name}_g01_c{k:02}.avi"), "w") as container:
                stream = container.add_stream("mpeg4", rate=25)
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                for frame in range(12):
                    pixels = np.full((48, 64, 3), shade + 5 * k, np.uint8)
                    pixels[:, frame * 4 : frame * 4 + 8] = 255
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                container.mux(stream.encode(None))

    class Means(torch.nn.Module):
        def forward(self, video: torch.Tensor) -> torch.Tensor:
            return video.flatten(2).mean(2)[:, :2]

    network = tmp_path / "network.pt"
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.script(Means()).save(str(network))
    options = ("--dataset", "ucf101", "--root", tmp_path, "--samples", 6, "--fvd", network, "--runner", "torch")
    outcome = f3prune("evaluate", run, *options, "--metrics", "psnr,fvd")
    assert outcome.code == 0, outcome.err
    data = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert data["dataset"]["prompts"] == 2
    assert data["dataset"]["real"] == 6
    assert data["dense"]["fvd"]["value"] > 0
    again = (*options, "--metrics", "psnr,fvd")
    assert "up to date" in f3prune("evaluate", run, *again).out
    one = tmp_path / "Archery" / "v_Archery_g01_c00.avi"
    one.write_bytes((tmp_path / "Archery" / "v_Archery_g01_c02.avi").read_bytes())
    assert "up to date" not in f3prune("evaluate", run, *again).out  # the real videos are others
    network.write_bytes(b"no TorchScript")
    assert "TorchScript" in f3prune("evaluate", run, *options, "--metrics", "psnr,fvd").err


@pytest.mark.parametrize(
    ("text", "dense", "pruned", "holds"),
    [
        ("fvd<=+0%", 10.0, 10.0, True),
        ("fvd<=+0%", 10.0, 10.1, False),
        ("fvd <= +5%", 10.0, 10.4, True),
        ("prompt_digit>=-2%", 1.0, 0.985, True),
        ("prompt_digit>=-0.01", 1.0, 0.985, False),
        ("psnr>=30", None, 30.5, True),
    ],
)
def test_budgets_by_hand(text: str, dense: float | None, pruned: float, holds: bool) -> None:
    assert Budget.parse(text).holds(dense, pruned) is holds


@pytest.mark.parametrize("text", ["fvd", "beauty<=3", "psnr>=+3", "fvd<=3%", "fvd=<3"])
def test_budgets_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="`budget`"):
        Budget.parse(text)


def test_videos_come_back_as_they_were_and_altered_ones_do_not(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 30, 34, 3)).astype(np.float32) / 255
    store = VideoStore(tmp_path / "videos", 2, {"masks": "a"})
    assert store.missing() == [0, 1]
    store.add(0, frames)
    again = VideoStore(tmp_path / "videos", 2, {"masks": "a"})
    assert again.missing() == [1]
    np.testing.assert_allclose(again[0], frames, atol=1e-6)
    (tmp_path / "videos" / "00000.mkv").write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="altered"):
        again[0]
    assert VideoStore(tmp_path / "videos", 2, {"masks": "a"}).missing() == [0, 1]
    assert VideoStore(tmp_path / "videos", 2, {"masks": "b"}).missing() == [0, 1]
