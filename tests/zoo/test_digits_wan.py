from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f3prune.zoo.digits.dataset import WORDS, load_split
from f3prune.zoo.digits_wan.dataset import (
    CANVAS,
    COLOURS,
    DIGIT,
    DIRECTIONS,
    FIRST_RUN,
    FRAMES,
    ROOM,
    SPEEDS,
    ClipSource,
    Mover,
    path,
    vocabulary,
)
from f3prune.zoo.digits_wan.judge import Judge, centroids, ink, motion
from f3prune.zoo.digits_wan.requests import requests
from zoo_training.digits_wan.architecture import (
    LATENT_CHANNELS,
    LATENT_FRAMES,
    LATENT_SIZE,
    MAX_TOKENS,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
)
from zoo_training.digits_wan.assemble import assemble
from zoo_training.digits_wan.evaluate import draw_clips, real_scores, score
from zoo_training.digits_wan.train_denoiser import load_average, save_average, stays_float32
from zoo_training.digits_wan.train_vae import VaeRecipe, decode_without_limits, load_vae, train
from zoo_training.evaluation import load_pipeline

ROOT = Path(__file__).parents[2]
VAE = ROOT / "f3prune" / "zoo" / "digits_wan" / "pipeline" / "vae"


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    torch.manual_seed(0)
    return {"transformer": build_transformer(), "text_encoder": build_text_encoder(len(build_tokenizer()))}


def pixels(video: torch.Tensor) -> np.ndarray:
    """Clips ``b c f h w`` in [-1, 1] as ``b f h w c`` in [0, 1]."""
    return (video * 0.5 + 0.5).permute(0, 2, 3, 4, 1).numpy()


def test_clips_follow_their_seed() -> None:
    first, second = (ClipSource(load_split(), 3).batch(4) for _ in range(2))
    assert torch.equal(first.video, second.video)
    assert first.prompts == second.prompts
    assert first.video.shape == (4, 3, FRAMES, CANVAS, CANVAS)
    assert -1.0 <= first.video.min() <= first.video.max() <= 1.0
    assert ClipSource(load_split(), 4).batch(4).prompts != first.prompts


def test_prompts_say_what_is_drawn() -> None:
    clips = ClipSource(load_split(), 5).batch(12)
    assert {len(movers) for movers in clips.movers} == {1, 2}
    for video, prompt, movers in zip(pixels(clips.video), clips.prompts, clips.movers, strict=True):
        said = prompt.split(" and ")
        assert len(said) == len(movers)
        shown = {colour for colour in COLOURS if np.median(ink(video, colour).sum(axis=(1, 2))) > 60}
        assert shown == {mover.colour for mover in movers}
        for words, mover in zip(said, movers, strict=True):
            assert {mover.colour, mover.speed, mover.direction} <= set(words.split())
            assert {str(mover.digit), WORDS[mover.digit]} & set(words.split())


def test_single_digits_move_as_told() -> None:
    clips = ClipSource(load_split(), 6).batch(10, two_share=0.0)
    for video, (mover,) in zip(pixels(clips.video), clips.movers, strict=True):
        centres = centroids(ink(video, mover.colour))
        frames = FIRST_RUN // SPEEDS[mover.speed]
        step = (centres[frames] - centres[0]) / frames
        np.testing.assert_allclose(step, np.array(DIRECTIONS[mover.direction]) * SPEEDS[mover.speed], atol=0.05)


def test_bounces_stay_inside_and_keep_the_speed() -> None:
    starts = np.random.default_rng(0).integers(ROOM + 1, size=(50, 2))
    corners = path(starts, np.array([3, -1]), 500)
    assert corners.min() == 0
    assert corners.max() == ROOM
    assert ROOM + DIGIT == CANVAS
    # Where it is thrown back, a digit ends its step on the way back.
    assert set(np.abs(np.diff(corners, axis=1))[..., 0].ravel().tolist()) <= {1, 2, 3}
    assert set(np.abs(np.diff(corners, axis=1))[..., 1].ravel().tolist()) == {1}


def test_every_prompt_fits_the_tokenizer() -> None:
    tokenizer = build_tokenizer()
    assert len(tokenizer) == len(vocabulary()) + 3
    source = ClipSource(load_split(), 7)
    ids = [
        tokens for frames in (1, 2) for tokens in tokenizer(source.batch(60, frames, two_share=1.0).prompts).input_ids
    ]
    assert max(map(len, ids)) <= MAX_TOKENS
    assert all(tokenizer.unk_token_id not in tokens for tokens in ids)


def test_judge_knows_real_held_out_clips(judge: Judge) -> None:
    scores = real_scores(judge, count=60)
    assert scores["judge_digit_accuracy_on_real_clips"] >= 0.95
    assert scores["judge_motion_accuracy_on_real_clips"] >= 0.97


def test_judge_tells_wrong_from_right(judge: Judge) -> None:
    clip = ClipSource(load_split(held_out=True), 8).batch(1, two_share=1.0)
    video, movers = pixels(clip.video)[0], clip.movers[0]
    backwards = judge(video[::-1].copy(), [movers[1].colour])[0]
    assert not backwards.motion_is(Mover(movers[1].digit, movers[1].colour, movers[1].speed, movers[1].direction))
    missing = next(colour for colour in COLOURS if colour not in {mover.colour for mover in movers})
    nothing = judge(video, [missing])[0]
    assert (nothing.digit, nothing.direction, nothing.speed) == (None, None, None)
    still = np.repeat(video[:1], FRAMES, axis=0)
    assert motion(ink(still, movers[1].colour)) == (None, None)
    as_bytes = judge((video * 255).round().astype(np.uint8), [movers[1].colour])
    assert as_bytes == judge(video, [movers[1].colour])


def test_requests_are_even_and_scored(judge: Judge) -> None:
    wanted = requests(24, 0)
    assert wanted == requests(24, 0)
    movers = [mover for request in wanted for mover in request.movers]
    assert len(movers) == 36
    assert np.bincount([mover.digit for mover in movers[:30]]).tolist() == [3] * 10
    assert len({(mover.speed, mover.direction) for mover in movers[:8]}) == 8
    black = np.zeros((2, FRAMES, CANVAS, CANVAS, 3), dtype=np.float32)
    scores = score(wanted[:2], black, judge)
    assert (scores["digits"], scores["digit_accuracy"], scores["motion_accuracy"]) == (3, 0.0, 0.0)


def test_sizes(nets: dict[str, Any]) -> None:
    vae = build_vae()
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 9, 32, 32)).latent_dist.mode()
        assert latents.shape == (1, LATENT_CHANNELS, 3, 8, 8)
        np.testing.assert_allclose(
            decode_without_limits(vae, latents).clamp(-1, 1), vae.decode(latents).sample, atol=1e-5
        )
    assert (LATENT_FRAMES, LATENT_SIZE) == (13, 32)
    _, height, width = nets["transformer"].config.patch_size
    assert (LATENT_SIZE // height) * (LATENT_SIZE // width) == 256
    size = 0
    for net in (vae, *nets.values()):
        size += sum(v.numel() * (4 if stays_float32(net, name) else 2) for name, v in net.state_dict().items())
    assert size <= 30_000_000


def test_a_killed_save_leaves_a_whole_checkpoint(nets: dict[str, Any], tmp_path: Path) -> None:
    save_average(nets, tmp_path, {"step": "1", "seconds": "2", "clips": "{}"})
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert all(file.stat().st_size < 16 * 2**20 for file in files)
    kept = {file: file.read_bytes() for file in files}
    save_average(nets, tmp_path, {"step": "5", "seconds": "9", "clips": "{}"})
    newer = {file: file.read_bytes() for file in files}
    # Killed between the two renamings: one file is new, the other one's successor still waits.
    files[1].write_bytes(kept[files[1]])
    waiting = Path(f"{files[1]}.tmp")
    waiting.write_bytes(newer[files[1]])
    tensors, said = load_average(tmp_path)
    assert said["step"] == "5"
    # Killed while it wrote: the older checkpoint is whole.
    files[0].write_bytes(kept[files[0]])
    waiting.write_bytes(newer[files[1]][:1000])
    assert load_average(tmp_path)[1]["step"] == "1"
    for part, net in nets.items():
        state = net.state_dict()
        assert state.keys() == tensors[part].keys()
        assert all(
            torch.equal(tensors[part][name].float(), state[name].to(tensors[part][name].dtype).float())
            for name in state
        )
    waiting.unlink()
    files[1].unlink()
    with pytest.raises(FileNotFoundError, match="no whole checkpoint"):
        load_average(tmp_path)


@pytest.mark.slow(reason="generates clips")
def test_assembled_pipeline_draws_clips(nets: dict[str, Any], tmp_path: Path) -> None:
    build_vae().save_pretrained(tmp_path / "vae")
    save_average(nets, tmp_path, {"step": "3", "seconds": "2", "clips": '{"13": 3}'})
    facts = assemble(tmp_path, tmp_path / "vae", tmp_path / "pipeline")
    assert facts == {"steps": 3, "seconds": 2, "clips": {"13": 3}}
    files = [file for file in (tmp_path / "pipeline").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 30_000_000
    assert {file.suffix for file in files} <= {".json", ".safetensors"}
    pipeline = load_pipeline(tmp_path / "pipeline").to(torch.float32)
    wanted = requests(1, 0)
    clips = draw_clips(pipeline, wanted, steps=1, guidance=1.0)
    assert clips.shape == (1, FRAMES, CANVAS, CANVAS, 3)
    np.testing.assert_array_equal(clips, draw_clips(pipeline, wanted, steps=1, guidance=1.0))


@pytest.mark.slow(reason="trains")
def test_autoencoder_is_trained_further(tmp_path: Path) -> None:
    facts = train(VaeRecipe(0.01, batch=4, learning_rate=1e-4, start=VAE, statistics=1), tmp_path)
    assert facts["steps"] == 1
    assert facts["held_out_digit_error"] < 0.05
    old, new = (load_vae(folder) for folder in (VAE, tmp_path))
    changes = [float((a - b).detach().abs().max()) for a, b in zip(old.parameters(), new.parameters(), strict=True)]
    assert 0.0 < max(changes) < 0.01
    assert new.config.latents_std != old.config.latents_std


@pytest.mark.slow(reason="trains")
def test_visit_can_be_rehearsed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = ROOT / "benchmarks" / "gpu" / "visit_b.py"
    command = [sys.executable, str(script), "--rehearse", "--out", str(out), "--vae", str(VAE)]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    facts = json.loads((out / "visit.json").read_text(encoding="utf-8"))
    assert facts["clips"].keys() == {"1", "3", "13"}
    assert facts["given_autoencoder"]["held_out_error"] < 0.02
    assert facts["scores"]["guidance 4.0"]["clips"] == 1
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, facts["steps"] + 1))
    assert load_average(out)[1]["step"] == str(facts["steps"])
    assert (out / "sheet.png").stat().st_size < 1_000_000
    assert len([file for file in out.rglob("*") if file.is_file()]) <= 8
