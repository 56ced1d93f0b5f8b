from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f3prune import zoo
from f3prune.models import TuneAVideoUNet
from f3prune.models.tune_a_video.checkpoint import load_state, save_state
from f3prune.models.tune_a_video.clips import read_clip
from f3prune.zoo.digits.dataset import CANVAS, FRAMES, load_split
from f3prune.zoo.digits.judge import Judge, centroid, direction, grey
from zoo_training.digits.muon import Muon
from zoo_training.digits_image import make_clip
from zoo_training.digits_image.build_tokenizer import MAX_TOKENS, build_tokenizer
from zoo_training.digits_image.card import temporal_sites
from zoo_training.digits_image.dataset import PLACES, ImageSource, vocabulary
from zoo_training.digits_image.evaluate import draw_images, is_there, requests
from zoo_training.digits_image.train_unet import ImageTrainer
from zoo_training.evaluation import load_pipeline
from zoo_training.training import Batch, Phase, Recipe, draw_timesteps


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline(zoo.path("zoo:digits-image"))


def test_name_has_a_hyphen_and_its_package_an_underscore() -> None:
    assert "digits-image" in zoo.names()
    assert zoo.path("digits-image").parent.name == "digits_image"


def test_every_word_is_one_token() -> None:
    tokenizer = build_tokenizer()
    assert all(len(tokenizer(word).input_ids) == 3 for word in vocabulary())
    prompts = ImageSource(load_split(), seed=1).batch(400).prompts
    assert max(map(len, tokenizer(prompts).input_ids)) <= MAX_TOKENS
    assert {place for place in PLACES for prompt in prompts if prompt.endswith(place)} == set(PLACES)


def test_images_follow_their_seed_and_prompt() -> None:
    first, second = (ImageSource(load_split(), seed=2).batch(200) for _ in range(2))
    assert torch.equal(first.pixels, second.pixels)
    assert first.prompts == second.prompts
    assert first.pixels.shape == (200, 3, CANVAS, CANVAS)
    for image, prompt in zip((first.pixels * 0.5 + 0.5).permute(0, 2, 3, 1).numpy(), first.prompts, strict=True):
        assert all(is_there(image, place) for place in PLACES if prompt.endswith(place))


def test_timesteps_are_valid() -> None:
    torch.manual_seed(0)
    drawn = draw_timesteps(Batch(1, 4000), 1000, 0.5, 0.5)
    assert 0 <= int(drawn.min()) < 20
    assert 980 < int(drawn.max()) <= 999


def test_stopped_training_goes_on(pipeline: Any, tmp_path: Path) -> None:
    recipe = Recipe(minutes=1.0, max_steps=1)
    first = ImageTrainer(pipeline.vae, recipe, tmp_path)
    first.curriculum = (Phase(1.0, (Batch(1, 2),)),)
    first.train(tmp_path / "log.jsonl")
    second = ImageTrainer(pipeline.vae, recipe, tmp_path)
    second.resume()
    assert second.step == 1
    for one, other in ((first.nets, second.nets), (first.average, second.average)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    for one, other in zip(first.optimizers, second.optimizers, strict=True):
        states, others = one.state_dict()["state"], other.state_dict()["state"]
        assert all(torch.equal(states[i][name], others[i][name]) for i in states for name in states[i])


def test_checkpoints_keep_every_moment(tmp_path: Path) -> None:
    matrix = torch.nn.Parameter(torch.randn(3, 4))
    optimizer = Muon([matrix], lr=0.1)
    matrix.square().sum().backward()
    optimizer.step()
    save_state(tmp_path / "x.safetensors", {"m": matrix}, [optimizer], {"step": 1})
    fresh = Muon([matrix], lr=0.1)
    tensors, facts = load_state(tmp_path / "x.safetensors", [fresh])
    assert facts == {"step": 1}
    assert torch.equal(tensors["m"], matrix)
    assert torch.equal(fresh.state[matrix]["momentum"], optimizer.state[matrix]["momentum"])


def test_saved_tokenizer_is_the_one_that_was_built(pipeline: Any) -> None:
    prompts = ["a 7 on the left", "the number three is going up", ""]
    assert pipeline.tokenizer(prompts).input_ids == build_tokenizer()(prompts).input_ids


def test_autoencoder_restores_held_out_images(pipeline: Any) -> None:
    pixels = ImageSource(load_split(held_out=True), seed=6).batch(8).pixels
    with torch.no_grad():
        restored = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode()).sample
    assert float((restored - pixels).abs().mean()) / 2.0 < 0.01


def test_inflation_gives_as_many_temporal_attentions_as_the_card_says(pipeline: Any) -> None:
    inflated = TuneAVideoUNet.from_2d(pipeline.unet)
    names = [name for name, _ in inflated.named_modules() if name.endswith(".attn_temp")]
    assert len(names) == temporal_sites(dict(pipeline.unet.config)) == 7


def test_card_matches_the_files() -> None:
    card = zoo.card("digits-image")
    readme = (zoo.path("digits-image") / "README.md").read_text(encoding="utf-8")
    assert card["scores"]["pairs"] == 100
    assert f"{card['scores']['digit_accuracy']:.1%}" in readme
    size = sum(file.stat().st_size for file in zoo.path("digits-image").rglob("*") if file.is_file())
    assert size <= 8_000_000


def test_pipeline_draws_what_the_prompt_says(pipeline: Any) -> None:
    wanted = requests(5, first_seed=600_000)
    settings = zoo.card("digits-image")["recommended"] | {"num_inference_steps": 12}
    verdicts = Judge().judge(draw_images(pipeline, wanted, settings))
    assert sum(verdict.digit == request.digit for verdict, request in zip(verdicts, wanted, strict=True)) >= 4


def test_clip_is_the_one_that_the_script_writes(tmp_path: Path) -> None:
    assert make_clip.FILE.stat().st_size < 60_000
    make_clip.main(["--out", str(tmp_path / "clip.mp4")])
    clips = [read_clip(file, FRAMES, CANVAS, CANVAS) for file in (make_clip.FILE, tmp_path / "clip.mp4")]
    assert float((clips[0] - clips[1]).abs().mean()) < 1e-3
    frames = clips[0].permute(0, 2, 3, 1).numpy() * 0.5 + 0.5
    assert direction(grey(frames)) == "right"
    assert np.abs(frames - make_clip.draw_clip().numpy()).mean() < 0.01
    assert centroid(grey(frames[0]))[1] < centroid(grey(frames[-1]))[1]
