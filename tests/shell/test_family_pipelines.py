"""The same commands serve every kind of pipeline: latents of any rank, any text encoder, images, cut prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Outcome, f3prune
from PIL import Image
from tiny_pipelines import MAKERS, save


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Two prompts of different lengths, with an image each."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "prompts.jsonl"


def write(file: Path, images: bool) -> None:
    rows = [{"prompt": text} | ({"image": "picture.png"} if images else {}) for text in ("a 3 moving left", "a 4")]
    file.write_text("\n".join(json.dumps(row) for row in rows))


def calibrate(family: str, prompts: Path, tmp_path: Path) -> tuple[Outcome, Path]:
    model = save(family, tmp_path / "model")
    write(prompts, images=family == "svd")
    sizes = [part for name, value in MAKERS[family][1].items() for part in (f"--{name.replace('_', '-')}", value)]
    run = tmp_path / "run"
    return f3prune("calibrate", model, "-o", run, "--prompts", prompts, "--steps", 2, *sizes), run


@pytest.mark.parametrize("family", MAKERS)
def test_calibrate_and_prune(family: str, prompts: Path, tmp_path: Path) -> None:
    outcome, run = calibrate(family, prompts, tmp_path)
    assert outcome.code == 0, outcome.err
    assert f"sites of {family}, 2 steps, 2 prompts" in outcome.out
    facts = json.loads((run / "manifest.json").read_text())["steps"]["calibrate"]["facts"]
    assert len(facts["text_lengths"]) == (2 if family == "latte" else 1)
    outcome = f3prune("prune", run, "--alpha", 0.5)
    assert outcome.code == 0, outcome.err
    assert "sites pruned" in outcome.out


@pytest.mark.slow(reason="a whole run of every family")
@pytest.mark.parametrize("family", MAKERS)
def test_generate_with_the_engine(family: str, prompts: Path, tmp_path: Path) -> None:
    _, run = calibrate(family, prompts, tmp_path)
    for command in (("prune", run, "--alpha", 0.5), ("export", run), ("build", run), ("check", run)):
        outcome = f3prune(*command)
        assert outcome.code == 0, outcome.err
    image = ("--image", tmp_path / "picture.png") if family == "svd" else ()
    outcome = f3prune("generate", run, "--prompt", "the digit 5", "-o", tmp_path / "out.gif", *image)
    assert outcome.code == 0, outcome.err
    frames = MAKERS[family][1]["num_frames"]
    assert f"{frames} frames of {MAKERS[family][1]['width']} x {MAKERS[family][1]['height']} pixels" in outcome.out


def test_image_models_ask_for_images(prompts: Path, tmp_path: Path) -> None:
    model = save("svd", tmp_path / "model")
    outcome = f3prune("calibrate", model, "-o", tmp_path / "run", "--steps", 1)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "has none" in outcome.err
    assert "picture.png" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--height", 40, "expected a multiple of 16: try 32 or 48"),
        ("--width", 7, "expected a multiple of 16: try 16 or 32"),
        ("--num-frames", 7, "expected 1 + a multiple of 4: try 5 or 9"),
    ],
)
def test_sizes_are_refused_with_the_nearest_ones(tmp_path: Path, option: str, value: int, says: str) -> None:
    model = save("wan", tmp_path / "model")
    outcome = f3prune("calibrate", model, "-o", tmp_path / "run", "--steps", 1, option, value)
    assert outcome.code == 2
    assert outcome.err == f"f3prune: {option} is {value}, {says}\n"
    assert not (tmp_path / "run").exists()


def test_settings_without_a_meaning_are_refused(prompts: Path, tmp_path: Path) -> None:
    model = save("svd", tmp_path / "model")
    prompts.write_text('{"image": "picture.png", "negative_prompt": "blurred"}')
    outcome = f3prune("calibrate", model, "-o", tmp_path / "run", "--prompts", prompts, "--steps", 1)
    assert outcome.code == 2
    assert "negative_prompt 'blurred' has no meaning for StableVideoDiffusionPipeline" in outcome.err
