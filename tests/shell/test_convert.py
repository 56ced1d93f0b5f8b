"""`f3prune convert`: a published checkpoint becomes a MODEL; whatever else the file is, is one line and no files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Outcome, f3prune
from safetensors.torch import load_file

from f3prune.cli.commands.models.convert import SHAPES
from f3prune.core.errors import InputError
from f3prune.models import CogVideo
from f3prune.models.cogvideo import PUBLISHED, CogVideoConfig
from f3prune.pipelines.sources import resolve
from f3prune.steps.convert import cogvideo_config, convert_cogvideo
from tests.models.cogvideo_subject import published_state

ORACLE = Path(__file__).resolve().parents[2].parent / "shared" / "oracle" / "cogvideo"
SMALL: dict[str, int] = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "text_len": 3,
    "frame_len": 4,
    "frame_num": 2,
    "max_sequence_length": 516,
    "additional_seqlen": 8,
}
WORDS = "transformer.word_embeddings.weight"
GATE = "mixins.attention_plus.attn_distribution.1"


@pytest.fixture(scope="module")
def model() -> CogVideo:
    torch.manual_seed(0)
    found = CogVideo(CogVideoConfig(**SMALL))
    for parameter in found.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return found.eval().requires_grad_(False)


@pytest.fixture
def state(model: CogVideo) -> dict[str, Any]:
    """Published names; a dict of its own for every test."""
    return published_state(model.state_dict(), model.shape)


Convert = Callable[..., Outcome]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Save what is given as a checkpoint and convert it into ``tmp_path / "out"``."""
    config = tmp_path / "shape.json"
    config.write_text(json.dumps(SMALL))

    def run(content: Any, *arguments: object) -> Outcome:
        torch.save(content, tmp_path / "states.pt")
        given = arguments or ("--config", config)
        return f3prune("convert", "cogvideo", tmp_path / "states.pt", "-o", tmp_path / "out", *given)

    return run


def refused(outcome: Outcome, output: Path, *words: str) -> None:
    """Exit 2, one line that holds the words, nothing written."""
    assert outcome.code == 2, outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert not outcome.out
    for word in words:
        assert word in outcome.err
    assert not output.exists()
    assert not list(output.parent.glob(".tmp-*"))


def logits(model: CogVideo) -> torch.Tensor:
    tokens = torch.arange(11)[None] % 20
    positions = torch.cat([torch.arange(3), torch.arange(512, 520)])[None]
    return model(tokens, positions, torch.ones(1, 3, dtype=torch.int64))


def test_the_result_is_the_model(model: CogVideo, state: dict[str, Any], convert: Convert, tmp_path: Path) -> None:
    outcome = convert({"module": state, "iteration": 7})
    assert outcome.code == 0, outcome.err
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"2 layers and width 16, {count:,} parameters in float32, 1 safetensors file\n" in outcome.out
    loaded = CogVideo.from_pretrained(tmp_path / "out").eval()
    assert loaded.shape == model.shape
    assert torch.equal(logits(loaded), logits(model))
    assert resolve(str(tmp_path / "out")).kind == "denoiser"
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "shape.json", "states.pt"]


def test_half_precision_stays(state: dict[str, Any], convert: Convert, tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    outcome = convert({"module": half})
    assert outcome.code == 0, outcome.err
    assert "parameters in float16" in outcome.out
    (file,) = (tmp_path / "out").glob("*.safetensors")
    written = load_file(file)
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    assert torch.equal(written["word_embeddings.weight"], half[WORDS])


def test_several_files_load_as_one(model: CogVideo, state: dict[str, Any], tmp_path: Path) -> None:
    # Two names for the same memory, which safetensors refuses.
    state["transformer.layers.1.mlp.dense_h_to_4h.weight"] = state["transformer.layers.0.mlp.dense_h_to_4h.weight"]
    torch.save({"module": state}, tmp_path / "states.pt")
    made = convert_cogvideo(tmp_path / "states.pt", tmp_path / "out", model.shape, shard_bytes=30_000)
    assert len(made.files) > 2
    index = json.loads((tmp_path / "out" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(made.files)
    assert index["metadata"]["total_size"] == 4 * made.parameters
    loaded = CogVideo.from_pretrained(tmp_path / "out")
    again = published_state(loaded.state_dict(), loaded.shape)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_all_that_does_not_fit_is_named(state: dict[str, Any], convert: Convert, tmp_path: Path) -> None:
    del state[GATE]
    state["mixins.other.weight"] = torch.zeros(2)
    state[WORDS] = state[WORDS][:-1]
    outcome = convert({"module": state})
    refused(
        outcome,
        tmp_path / "out",
        f"missing: {GATE}",
        "left over: mixins.other.weight",
        f"misshapen: {WORDS} [19, 16] instead of [20, 16]",
        "--config",
    )


def test_the_published_shape_is_the_default(state: dict[str, Any], convert: Convert, tmp_path: Path) -> None:
    outcome = convert({"module": state}, "--shape", "cogvideo-stage2")
    refused(outcome, tmp_path / "out", "48 layers and width 3072", "transformer.layers.47.")
    assert tuple(PUBLISHED) == SHAPES
    assert cogvideo_config() == PUBLISHED["cogvideo-stage1"]
    assert cogvideo_config("cogvideo-stage2") == PUBLISHED["cogvideo-stage2"]


class Harmful:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_nothing_but_tensors_is_unpickled(state: dict[str, Any], convert: Convert, tmp_path: Path, place: str) -> None:
    harmful = Harmful(tmp_path / "ran")
    content = {"module": state, "args": harmful} if place == "beside" else {"module": {**state, "x": harmful}}
    refused(convert(content), tmp_path / "out", "more than plain tensors")
    assert not harmful.trace.exists()
    refused(convert({"module": state, "args": argparse.Namespace()}), tmp_path / "out", "(argparse.Namespace)")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": {}, "iteration": 3}, ("no key 'module'", "model, iteration")),
        ([1, 2], ("holds a list",)),
        ({"module": 3}, ("is a int",)),
        ({"module": {"step": 3, "mask": torch.ones(2, dtype=torch.int64)}}, ("step (int)", "mask (int64")),
        ({"module": {3: torch.ones(2)}}, ("3 (float32",)),
    ],
)
def test_other_contents(content: Any, words: tuple[str, ...], convert: Convert, tmp_path: Path) -> None:
    refused(convert(content), tmp_path / "out", *words)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_cut_short(state: dict[str, Any], convert: Convert, tmp_path: Path, share: float) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"module": state}, whole)
    data = whole.read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(data[: int(share * len(data))])
    refused(
        f3prune("convert", "cogvideo", cut, "-o", tmp_path / "out"), tmp_path / "out", "cut.pt", "download it again"
    )


def test_an_older_format(state: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"module": state}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    outcome = f3prune("convert", "cogvideo", tmp_path / "old.pt", "-o", tmp_path / "out")
    refused(outcome, tmp_path / "out", "zip format")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(f3prune("convert", "cogvideo", tmp_path / "no.pt", "-o", out), out, "no.pt does not exist")
    refused(f3prune("convert", "cogvideo", tmp_path, "-o", out), out, "is a directory")
    outcome = f3prune("convert", "cogvideo", tmp_path / "no.pt", "-o", out, "--config", tmp_path / "no.json")
    refused(outcome, out, "no.json does not exist")


def test_an_output_that_is_taken(state: dict[str, Any], convert: Convert, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    outcome = convert({"module": state})
    assert outcome.code == 2
    assert "exists already: give a new directory, or remove this one" in outcome.err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    assert convert({"module": state}).code == 0
    blocked = f3prune("convert", "cogvideo", tmp_path / "states.pt", "-o", tmp_path / "states.pt" / "out")
    assert (blocked.code, "is a file, not a directory" in blocked.err) == (2, True)


def test_a_write_that_fails_leaves_nothing(
    state: dict[str, Any], convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("f3prune.steps.convert.save_file", full)
    refused(convert({"module": state}), tmp_path / "out", "No space left on device", "make room")


def test_options(state: dict[str, Any], convert: Convert, tmp_path: Path) -> None:
    out, config = tmp_path / "out", tmp_path / "shape.json"
    refused(convert({"module": state}, "--shape", "cogvideo"), out, "'cogvideo'", "cogvideo-stage2")
    refused(convert({"module": state}, "--shape", "cogvideo-stage1", "--config", config), out, "one of them")
    with pytest.raises(InputError, match="cogvideo-stage3 is not known"):
        cogvideo_config("cogvideo-stage3")
    config.write_text(json.dumps({"_class_name": "CogVideo", "num_layers": "2", "depth": 4}))
    refused(convert({"module": state}), out, "depth is not a hyperparameter", "num_layers is '2'")
    config.write_text("{")
    refused(convert({"module": state}), out, "shape.json", "JSON")


@pytest.mark.skipif(not ORACLE.is_dir(), reason="the original's recorded outputs are not here")
def test_the_originals_parameters_give_its_logits(tmp_path: Path) -> None:
    facts = json.loads((ORACLE / "stage2_window_tiny.json").read_text())
    with np.load(ORACLE / "stage2_window_tiny.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    parameters = {key.removeprefix("param/"): value for key, value in arrays.items() if key.startswith("param/")}
    torch.save({"module": parameters}, tmp_path / "states.pt")
    names = set(CogVideoConfig.__dataclass_fields__)
    (tmp_path / "shape.json").write_text(json.dumps({name: facts[name] for name in names & facts.keys()}))
    outcome = f3prune(
        "convert", "cogvideo", tmp_path / "states.pt", "-o", tmp_path / "out", "--config", tmp_path / "shape.json"
    )
    assert outcome.code == 0, outcome.err
    model = CogVideo.from_pretrained(tmp_path / "out").eval().requires_grad_(False)
    found = model(arrays["in/tokens"], arrays["in/position_ids"], arrays["in/attention_mask_totxt"])
    torch.testing.assert_close(found, arrays["out/logits"], atol=1e-4, rtol=0)
