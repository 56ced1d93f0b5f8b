from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from f3prune import zoo
from f3prune.core.errors import InputError
from f3prune.models import CogVideoPipeline
from f3prune.models.cogvideo.text import WordTokenizer
from f3prune.models.cogvideo.vq import PatchVQ
from f3prune.zoo.digits.dataset import DIRECTIONS, ClipSource, load_split
from f3prune.zoo.digits.judge import Judge
from f3prune.zoo.digits.requests import requests
from zoo_training.digits_cogvideo.architecture import FRAMES
from zoo_training.digits_cogvideo.evaluate import Parts, draw_clips, load_parts
from zoo_training.digits_cogvideo.sequences import build_tokenizer, lay_out
from zoo_training.digits_cogvideo.train_transformer import CogVideoTrainer
from zoo_training.digits_cogvideo.train_vq import Codebook, clips_of, train_vq
from zoo_training.training import Batch, Phase, Recipe

FOLDER = Path(zoo.__file__).parent / "digits_cogvideo"
SEQUENCE = 8 + FRAMES * 64
LEAST_PAIRS = 100


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(clips=1000)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return load_parts(zoo.path("digits-cogvideo"))


def test_pipeline_folder_is_complete(parts: Parts) -> None:
    folder = zoo.path("zoo:digits-cogvideo")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "CogVideoPipeline"
    assert all((folder / part).is_dir() for part in ("transformer", "vq", "tokenizer"))
    shape = parts.transformer.shape
    assert (shape.frame_num, shape.frame_len) == (FRAMES, parts.vq.grid**2)
    assert shape.vocab_size == parts.tokenizer.vocab_size
    assert parts.tokenizer.first == len(parts.vq.codebook)
    assert parts.tokenizer.text_len == shape.text_len


def test_card_matches_the_files() -> None:
    card = zoo.card("digits-cogvideo")
    assert set(card["recommended"]) >= {"temperature", "top_k", "guidance_scale"}
    assert card["clip"] == {"num_frames": FRAMES, "height": 32, "width": 32}
    assert card["scores"]["pairs"] >= LEAST_PAIRS
    readme = (zoo.path("digits-cogvideo") / "README.md").read_text(encoding="utf-8")
    assert f"{card['scores']['digit_accuracy']:.1%}" in readme
    assert f"{card['scores']['motion_accuracy']:.1%}" in readme


def test_every_prompt_of_the_list_and_of_the_training_is_known(parts: Parts) -> None:
    prompts = (FOLDER / "prompts.txt").read_text(encoding="utf-8").splitlines()
    prompts += ClipSource(load_split(), seed=4).batch(200, frames=1, still_share=0.3).prompts
    assert all(1 < len(parts.tokenizer.encode(prompt)) <= parts.tokenizer.text_len for prompt in prompts)
    assert parts.tokenizer.encode("a 7") == build_tokenizer(parts.tokenizer.first).encode("a 7")


def test_round_trip_keeps_digit_and_motion(parts: Parts, judge: Judge) -> None:
    video, digits, ways = clips_of(load_split(held_out=True), 7, 40, FRAMES)
    restored = parts.vq.decode(parts.vq.encode(video))
    assert restored.shape == video.shape
    assert float((restored - video).abs().mean()) < 0.015
    verdicts = judge.judge(restored.numpy())
    assert sum(v.digit == digit for v, digit in zip(verdicts, digits, strict=True)) >= 36
    assert [v.direction for v in verdicts] == ways


def test_a_whole_patch_of_motion_moves_tokens_and_changes_none(parts: Parts) -> None:
    video = torch.zeros(2, 1, 32, 32, 3)
    digit = load_split().images[0][..., None].expand(-1, -1, 3)
    video[0, 0, 8:24, 5:21] = digit
    video[1, 0, 8:24, 9:25] = digit
    before, after = parts.vq.encode(video).view(2, 8, 8)
    assert torch.equal(before[:, :-1], after[:, 1:])


def test_pipeline_draws_what_the_evaluation_judged(parts: Parts) -> None:
    (request,) = requests(1, first_seed=5)
    clip = draw_clips(parts, [request], zoo.card("digits-cogvideo")["recommended"])
    assert clip.shape == (1, FRAMES, 32, 32, 3)
    pipeline = CogVideoPipeline.from_pretrained(zoo.path("digits-cogvideo"))
    generator = torch.Generator().manual_seed(request.seed)
    np.testing.assert_array_equal(clip, pipeline(request.prompt, generator=generator).frames)


def test_vq_says_what_is_wrong_with_its_input() -> None:
    vq = PatchVQ(codebook_size=4)
    with pytest.raises(InputError, match=r"\[1, 2, 16, 16, 3\].*32, 32, 3"):
        vq.encode(torch.zeros(1, 2, 16, 16, 3))
    with pytest.raises(InputError, match=r"\[1, 2, 63\].*64"):
        vq.decode(torch.zeros(1, 2, 63, dtype=torch.int64))
    with pytest.raises(InputError, match="0 to 3"):
        vq.decode(torch.full((1, 1, 64), 4))
    with pytest.raises(InputError, match="patch_size 5"):
        PatchVQ(patch_size=5)


def test_vq_survives_saving(tmp_path: Path) -> None:
    vq = PatchVQ(codebook_size=8).eval()
    vq.save_pretrained(tmp_path)
    tokens = torch.randint(8, (1, 2, 64), generator=torch.Generator().manual_seed(0))
    assert torch.equal(PatchVQ.from_pretrained(tmp_path).decode(tokens), vq.decode(tokens))
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_tokenizer_names_the_word_or_the_length_that_does_not_fit(tmp_path: Path) -> None:
    tokenizer = WordTokenizer(["a", "7", "left"], first=16, text_len=4)
    assert (tokenizer.pad, tokenizer.begin_of_image, tokenizer.vocab_size) == (16, 17, 22)
    assert tokenizer.encode("a  7 left") == [18, 19, 20, 21]
    assert tokenizer.encode("") == [18]
    with pytest.raises(InputError, match="'zebra' in the prompt 'a zebra'") as found:
        tokenizer.encode("a zebra")
    assert "\n" not in str(found.value)
    with pytest.raises(InputError, match="4 words, expected at most 3"):
        tokenizer.encode("a a a a")
    with pytest.raises(InputError, match="'a' more than once"):
        WordTokenizer(["a", "a"], first=16, text_len=4)
    tokenizer.save_pretrained(tmp_path)
    assert WordTokenizer.from_pretrained(tmp_path).encode("a left") == tokenizer.encode("a left")


@pytest.mark.parametrize("content", ["", "[]", '{"words": "a", "first": 1, "text_len": 4}', '{"first": 1}'])
def test_tokenizer_refuses_another_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="not a word tokenizer"):
        WordTokenizer.from_pretrained(tmp_path)


def test_layout_pads_left_and_shifts_frames_by_begin_of_image() -> None:
    tokenizer = WordTokenizer(["a", "7"], first=16, text_len=4)
    given = lay_out(tokenizer, ["a 7", ""], torch.arange(8).view(1, 2, 4).expand(2, -1, -1))
    assert given.tokens[0].tolist() == [16, 18, 19, 20, 17, 0, 1, 2, 17, 4, 5, 6]
    assert given.text_mask.tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]
    assert given.position_ids[0].tolist() == [0, 0, 1, 2, *range(512, 520)]


def test_codebook_uses_all_codes_on_mostly_equal_latents() -> None:
    torch.manual_seed(0)
    vq = PatchVQ(codebook_size=16)
    latents = torch.cat([torch.zeros(900, 16), torch.randn(100, 16)])
    codebook = Codebook(vq.requires_grad_(False))
    codebook.place(latents)
    assert len(vq.nearest(latents).unique()) == 16
    vq.codebook.data[3] = 100.0
    codebook.counts[3], codebook.sums[3] = 0.0, 0.0
    codebook.follow(latents, vq.nearest(latents), restart=True)
    assert vq.codebook.abs().max() < 10.0


def test_training_steps_run_and_resume(tmp_path: Path) -> None:
    vq, steps = train_vq(1.0, seed=0, log_path=tmp_path / "vq.jsonl", max_steps=3)
    assert steps == 4
    short = (Phase(1.0, (Batch(1, 2), Batch(2, 2))),)
    trainer = CogVideoTrainer(vq, Recipe(1.0, max_steps=2, bfloat16=True), tmp_path)
    trainer.curriculum = short
    trainer.train(tmp_path / "log.jsonl")
    trainer.export(tmp_path / "pipeline")
    again = CogVideoTrainer(vq, Recipe(1.0, max_steps=3, bfloat16=True), tmp_path)
    again.curriculum = short
    again.resume()
    assert again.step == 2
    for (name, value), other in zip(trainer.nets.state_dict().items(), again.nets.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    again.train(tmp_path / "log.jsonl")
    assert (again.step, again.clips["1"], again.clips["2"]) == (3, 4, 2)
    loaded = load_parts(tmp_path / "pipeline")
    assert torch.equal(loaded.transformer.word_embeddings.weight, trainer.average["transformer"].word_embeddings.weight)
    assert loaded.transformer.frame_position_embeddings.weight.shape[0] == SEQUENCE - 8 - 64


def test_pipeline_draws_what_the_prompt_says(parts: Parts, judge: Judge) -> None:
    wanted = requests(20, first_seed=500_000)
    verdicts = judge.judge(draw_clips(parts, wanted, zoo.card("digits-cogvideo")["recommended"]))
    both = list(zip(wanted, verdicts, strict=True))
    assert {request.direction for request in wanted} == set(DIRECTIONS)
    assert sum(verdict.direction == request.direction for request, verdict in both) >= 17
    assert sum(verdict.digit == request.digit for request, verdict in both) >= 17
