"""CogVideo through the command line: calibrate, prune, export, build, generate, check, bench, report."""

import json

import numpy as np
import pytest
import torch
from cogvideo_subject import tiny

from f3prune.calibration import Calibration
from f3prune.core.errors import InputError
from f3prune.models import CogVideoPipeline, PatchVQ, WordTokenizer
from f3prune.models.cogvideo.pipeline import CogVideoSettings


def pipeline_of(**settings):
    """A tiny random pipeline: 32 image tokens, four words."""
    tokenizer = WordTokenizer(["a", "thing", "moving", "left"], first=32, text_len=5)
    model = tiny(layers=2)
    torch.manual_seed(0)
    vq = PatchVQ(image_size=16, patch_size=4, codebook_size=32, code_width=4, width=8).eval()
    defaults = {"top_k": 4, "temperature": 1.0, "guidance_scale": 2.0}
    return CogVideoPipeline(model, vq, tokenizer, CogVideoSettings(**{**defaults, **settings}))


@pytest.fixture(scope="module", params=["both", "spatial"])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "model"
    pipeline_of(first_frame=request.param).save_pretrained(path)
    (path.parent / "prompts.txt").write_text("a thing moving left\na thing\n")
    return path


def test_a_pipeline_saves_and_loads(model):
    loaded, made = CogVideoPipeline.from_pretrained(model), []
    for pipeline in (loaded, pipeline_of(first_frame=loaded.settings.first_frame)):
        made.append(pipeline("a thing", generator=torch.Generator().manual_seed(3)))
    assert torch.equal(made[0].tokens, made[1].tokens)
    np.testing.assert_array_equal(made[0].frames, made[1].frames)
    assert made[0].frames.shape == (1, 3, 16, 16, 3)
    with pytest.raises(InputError, match="expected 1 to 3"):
        loaded("a thing", num_frames=4)
    with pytest.raises(InputError, match="not a word this model knows"):
        loaded("an elephant")


def test_the_index_names_no_foreign_code(model, tmp_path):
    index = json.loads((model / "model_index.json").read_text())
    index["vq"] = ["os", "system"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="other code is not run"):
        CogVideoPipeline.from_pretrained(tmp_path)


@pytest.mark.slow(reason="a whole run of a model of two stages")
def test_the_whole_run(model, tmp_path):
    from click.testing import CliRunner

    from f3prune.cli.main import cli

    run = tmp_path / "run"
    prompts = model.parent / "prompts.txt"
    command = ["run", str(model), "-o", str(run), "--alpha", "0.5", "--mode", "drop", "--prompts", str(prompts)]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    calibration = Calibration.load(run / "aas.safetensors")
    assert {mass.shape for mass in calibration.mass.values()} == {(1, 4, 3, 4)}
    for mass in calibration.mass.values():
        torch.testing.assert_close(mass.sum(-1), torch.ones(1, 4, 3))
        # Stage 1 looks back only.
        assert (mass[..., :3].triu(1) == 0).all()
    check = json.loads((run / "check.json").read_text())
    assert check["passed"]
    assert check["export"]["psnr"] == "inf" or float(check["export"]["psnr"]) > 60
    assert check["coupling"]["dense"]["responding"] == [[0, 1, 2], [1, 2], [2]]
    bench = json.loads((run / "bench.json").read_text())
    assert set(bench["seconds"]) == {"dense engine", "pruned engine", "dense PyTorch", "pruned PyTorch"}
    assert (run / "video.mp4").stat().st_size > 0
    assert (run / "onnx" / "first").is_dir() == (model.parent.name.startswith("spatial"))
    assert "frame" in (run / "report.html").read_text()
    again = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert "up to date" in again.output
    options = ["--alpha", "0.5", "--mode", "drop", "--refit", "--refit-generations", "1"]
    for command in (["prune", str(run), *options], ["export", str(run)], ["build", str(run)], ["check", str(run)]):
        result = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert "refitted on 1 generation of" in CliRunner().invoke(cli, ["prune", str(run), *options]).output


@pytest.mark.slow(reason="a whole run")
def test_stage_2_alone_is_checked_as_it_generates(tmp_path):
    from click.testing import CliRunner

    from f3prune.cli.main import cli

    tiny(2, 2, layers=2).save_pretrained(tmp_path / "model")
    command = ["run", str(tmp_path / "model"), "-o", str(tmp_path / "run"), "--alpha", "0.5", "--granularity", "head"]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "check.json").read_text())["passed"]


def test_a_model_alone_runs_on_synthetic_tokens(model, tmp_path):
    from click.testing import CliRunner

    from f3prune.cli.main import cli

    for command in (
        ["calibrate", str(model / "transformer"), "-o", str(tmp_path / "run"), "--steps", "1"],
        ["prune", str(tmp_path / "run"), "--alpha", "1", "--granularity", "head"],
    ):
        result = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
