from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f3prune import zoo
from f3prune.zoo.digits.dataset import CANVAS, DIRECTIONS, FRAMES, TRAVEL, ClipSource, load_split, typical, vocabulary
from f3prune.zoo.digits.judge import Judge, centroid, direction, grey
from f3prune.zoo.digits.requests import requests
from zoo_training.digits import train
from zoo_training.digits.build_tokenizer import MAX_TOKENS, build_tokenizer
from zoo_training.digits.evaluate import draw_clips
from zoo_training.digits.muon import Muon, orthogonal
from zoo_training.evaluation import load_pipeline, real_scores
from zoo_training.training import Batch, draw_timesteps


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise OSError("tests of the built-in models must not use the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline(zoo.path("digits"))


def test_split_keeps_held_out_digits_apart() -> None:
    train, held_out = load_split(), load_split(held_out=True)
    assert len(train.labels) + len(held_out.labels) == 1797
    assert 0.19 < len(held_out.labels) / 1797 < 0.21
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in held_out.images)


def test_typical_images_are_the_nearest_to_the_mean() -> None:
    split = load_split()
    kept = typical(split, 5)
    assert kept.labels.bincount().tolist() == [5] * 10
    sevens, chosen = split.images[split.labels == 7], kept.images[kept.labels == 7]
    middle = sevens.mean(dim=0)
    assert (chosen - middle).square().sum(dim=(1, 2)).max() < (sevens - middle).square().sum(dim=(1, 2)).median()


def test_timesteps_are_valid_and_noisier_for_more_frames() -> None:
    torch.manual_seed(0)
    few, many = (draw_timesteps(Batch(frames, 4000), 1000, 0.3, 0.2) for frames in (1, 8))
    assert 0 <= int(few.min()) <= int(many.max()) <= 999
    assert few.float().mean() < many.float().mean()


def test_clips_follow_their_seed_and_prompt() -> None:
    first, second = (ClipSource(load_split(), seed=3).batch(12) for _ in range(2))
    assert torch.equal(first.video, second.video)
    assert first.prompts == second.prompts
    assert first.video.shape == (12, 3, FRAMES, CANVAS, CANVAS)
    assert first.video.min() == -1.0
    frames = grey(first.video.numpy().transpose(0, 2, 3, 4, 1) * 0.5 + 0.5)
    for clip, way in zip(frames, first.directions, strict=True):
        (row, column), (last_row, last_column) = centroid(clip[0]), centroid(clip[-1])
        moved = (round(last_row - row), round(last_column - column))
        assert moved == tuple(TRAVEL * step for step in DIRECTIONS[way])


def test_every_prompt_fits_the_tokenizer() -> None:
    tokenizer = build_tokenizer()
    assert len(tokenizer) == len(vocabulary()) + 3
    prompts = ClipSource(load_split(), seed=4).batch(200, frames=1, still_share=0.3).prompts
    ids = tokenizer(prompts).input_ids
    assert max(map(len, ids)) <= MAX_TOKENS
    assert all(tokenizer.unk_token_id not in tokens for tokens in ids)
    assert tokenizer("a zebra").input_ids == [*tokenizer("a").input_ids[:1], tokenizer.unk_token_id, 1]


def test_judge_knows_real_held_out_clips(judge: Judge) -> None:
    scores = real_scores(judge, count=300)
    assert scores["judge_digit_accuracy_on_real_clips"] >= 0.97
    assert scores["judge_motion_accuracy_on_real_clips"] >= 0.99


def test_judge_sees_no_motion_and_no_digit_where_there_is_none(judge: Judge) -> None:
    still = ClipSource(load_split(held_out=True), seed=5).batch(1, frames=1, still_share=1.0).video
    clip = (still * 0.5 + 0.5).expand(-1, -1, FRAMES, -1, -1).permute(0, 2, 3, 4, 1).numpy()
    assert direction(grey(clip)[0]) is None
    assert judge(np.zeros_like(clip[0])).digit is None


def test_orthogonal_keeps_directions_and_evens_lengths() -> None:
    stack = torch.randn(3, 24, 8, generator=torch.Generator().manual_seed(0))
    lengths = torch.linalg.svdvals(orthogonal(stack))
    assert lengths.min() > 0.5
    assert lengths.max() < 1.5


def test_muon_lowers_a_loss_and_leaves_matrices_without_gradient_alone() -> None:
    torch.manual_seed(0)
    used, unused = (torch.nn.Parameter(torch.randn(6, 4)) for _ in range(2))
    target, before = torch.zeros(6, 4), unused.detach().clone()
    optimizer = Muon([used, unused], lr=0.2, weight_decay=0.0)
    first = (used - target).square().sum().item()
    for _ in range(60):
        optimizer.zero_grad()
        (used - target).square().sum().backward()
        optimizer.step()
    assert (used - target).square().sum().item() < first / 4
    assert torch.equal(unused, before)


def test_saved_tokenizer_is_the_one_that_was_built(pipeline: Any) -> None:
    prompts = ["a 7 moving left", "the number three is going up", ""]
    assert pipeline.tokenizer(prompts).input_ids == build_tokenizer()(prompts).input_ids


def test_pipeline_defaults_and_determinism(pipeline: Any) -> None:
    def draw() -> Any:
        return pipeline(
            "a 7 moving left",
            num_inference_steps=2,
            guidance_scale=2.0,
            max_sequence_length=pipeline.transformer.config.max_text_seq_length,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).frames

    first = draw()
    assert first.shape == (1, FRAMES, CANVAS, CANVAS, 3)
    assert 0.0 <= first.min() <= first.max() <= 1.0
    np.testing.assert_array_equal(first, draw())


def test_autoencoder_restores_held_out_clips(pipeline: Any) -> None:
    video = ClipSource(load_split(held_out=True), seed=6).batch(2).video
    with torch.no_grad():
        restored = pipeline.vae.decode(pipeline.vae.encode(video).latent_dist.mode()).sample
    assert float((restored - video).abs().mean()) / 2.0 < 0.015


def test_a_pipeline_is_trained_further(tmp_path: Path) -> None:
    start = zoo.path("digits")
    command = ["--out", str(tmp_path), "--start-from", str(start), "--steps", "2", "--learning-rate", "1e-4"]
    train.main(command)
    before = json.loads((start / "training.json").read_text(encoding="utf-8"))
    after = json.loads((tmp_path / "pipeline" / "training.json").read_text(encoding="utf-8"))
    assert after["steps"] == before["steps"] + 2
    assert after["continued"]["clips"] == {"1": 64, "8": 10}
    assert after["clips"] == before["clips"] | {"1": before["clips"]["1"] + 64, "8": before["clips"]["8"] + 10}
    assert after["vae"] == before["vae"]
    old, new = (load_pipeline(folder).transformer.state_dict() for folder in (start, tmp_path / "pipeline"))
    assert 0.0 < max(float((old[name] - new[name]).abs().max()) for name in old) < 0.05


@pytest.mark.slow(reason="generates clips")
def test_pipeline_draws_what_the_prompt_says(pipeline: Any, judge: Judge) -> None:
    recommended = zoo.card("digits")["recommended"]
    wanted = requests(6, first_seed=500_000)
    verdicts = judge.judge(draw_clips(pipeline, wanted, recommended))
    both = list(zip(wanted, verdicts, strict=True))
    assert sum(verdict.direction == request.direction for request, verdict in both) >= 5
    assert sum(verdict.digit == request.digit for request, verdict in both) >= 4
