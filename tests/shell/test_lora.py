"""LoRAs are fused when a model is calibrated, and every later step has the fused weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import f3prune
from safetensors.torch import load_file, save_file
from tiny_pipelines import MAKERS, wan

from f3prune.calibration import load_pruned
from f3prune.core.errors import InputError
from f3prune.pipelines.loading import load_denoiser, load_pipeline
from f3prune.pipelines.lora import lora_of
from f3prune.pipelines.sources import Lora, resolve

SIZES = [word for name, value in MAKERS["wan"][1].items() for word in (f"--{name.replace('_', '-')}", value)]
LAYERS = ("blocks.0.attn1.to_q", "blocks.1.attn1.to_out.0", "blocks.1.ffn.net.2")
RANK = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "model"
    torch.manual_seed(0)
    wan().save_pretrained(folder)
    return folder


def matrices(model: Path, seed: int, prefix: str = "transformer.") -> dict[str, torch.Tensor]:
    """A pair for each of ``LAYERS``, with a name's prefix."""
    modules = dict(load_denoiser(resolve(str(model))).named_modules())
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer in LAYERS:
        weight: Any = modules[layer].weight
        rows, columns = weight.shape
        found[f"{prefix}{layer}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator)
        found[f"{prefix}{layer}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator)
    return found


def write(file: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    named = {f"transformer.{key}": value for key, value in config.items()}
    save_file(tensors, file, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(named)} if config else None)
    return file


def by_hand(model: Path, tensors: dict[str, torch.Tensor], factor: float) -> dict[str, torch.Tensor]:
    state = load_file(model / "transformer" / "diffusion_pytorch_model.safetensors")
    for layer in LAYERS:
        down, up = (tensors[f"transformer.{layer}.{part}.weight"] for part in ("lora_A", "lora_B"))
        state[f"{layer}.weight"] = state[f"{layer}.weight"] + factor * (up @ down)
    return state


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({}, 1.0),
        ({"lora_alpha": 6, "r": RANK}, 3.0),
        ({"lora_alpha": 6, "r": RANK, "use_rslora": True}, 6 / RANK**0.5),
        ({"lora_alpha": 1, "r": RANK, "alpha_pattern": {"attn1.to_q": 6, "to_out.0": 6, "ffn.net.2": 6}}, 3.0),
    ],
)
def test_a_fused_layer_is_the_sum(model: Path, tmp_path: Path, config: dict[str, Any], factor: float) -> None:
    tensors = matrices(model, 1)
    file = write(tmp_path / "style.safetensors", tensors, **config)
    source = resolve(str(model), loras=(Lora(file, 0.5),))
    assert source.digest() != resolve(str(model)).digest() != resolve(str(model), loras=(Lora(file, 1.0),)).digest()
    expected = by_hand(model, tensors, 0.5 * factor)
    for denoiser in (load_denoiser(source), load_denoiser(source, lazy=True), load_pipeline(source).transformer):
        state = denoiser.state_dict()
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(state[name] + 0, value, rtol=1e-5, atol=1e-6)


def test_formats_of_other_trainers_are_read(model: Path, tmp_path: Path) -> None:
    """Wan's own names, as most of its LoRAs have them."""
    own = {"to_q": "self_attn.q", "to_out.0": "self_attn.o", "ffn.net.2": "ffn.2"}
    tensors = matrices(model, 2)
    renamed = {}
    for name, value in tensors.items():
        layer = name.removeprefix("transformer.")
        block, rest = layer[: len("blocks.0")], layer[len("blocks.0.") :]
        for ours, theirs in own.items():
            rest = rest.replace(f"attn1.{ours}", theirs).replace(ours, theirs) if ours in rest else rest
        renamed[f"diffusion_model.{block}.{rest}"] = value
    file = write(tmp_path / "style.safetensors", renamed)
    state = load_denoiser(resolve(str(model), loras=(Lora(file),))).state_dict()
    for name, value in by_hand(model, tensors, 1.0).items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)


def test_nothing_pruned_is_the_fused_model_bit_for_bit_in_half_precision(model: Path, tmp_path: Path) -> None:
    load_pipeline(resolve(str(model))).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    file = write(tmp_path / "style.safetensors", matrices(model, 3))
    run = tmp_path / "run"
    options = ["--lora", f"{file}:0.25", "--lora", file, "--num-prompts", 1, "--steps", 2, *SIZES]
    for command in (("calibrate", tmp_path / "half", "-o", run, *options), ("prune", run, "--alpha", 0)):
        outcome = f3prune(*command)
        assert outcome.code == 0, outcome.err
    dense = load_denoiser(resolve(str(tmp_path / "half"), loras=(Lora(file, 0.25), Lora(file)))).state_dict()
    pruned = load_pruned(run / "pruned").state_dict()
    assert all(torch.equal(pruned[name], value) for name, value in dense.items())
    plain = load_denoiser(resolve(str(tmp_path / "half"))).state_dict()
    assert not torch.equal(pruned[f"{LAYERS[0]}.weight"], plain[f"{LAYERS[0]}.weight"])
    facts = json.loads((run / "manifest.json").read_text())["steps"]["calibrate"]["facts"]["loras"]
    assert [lora["scale"] for lora in facts] == [0.25, 1.0]
    assert all(len(lora["sha256"]) == 64 for lora in facts)
    write(file, matrices(model, 4))
    changed = f3prune("prune", run, "--alpha", 0.5)
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "changed since it was calibrated" in changed.err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {k.replace("blocks.0", "blocks.40"): v for k, v in t.items()}, "changes blocks.40.attn1.to_q"),
        (lambda t: {k: v.repeat(2, 2) for k, v in t.items()}, "is for another model: it changes blocks.0.attn1.to_q"),
        (lambda t: {k.replace("transformer", "unet"): v for k, v in t.items()}, "is for another model"),
        (lambda t: {k: v for k, v in t.items() if "lora_A" not in k}, "no lora_A"),
        (lambda t: {f"{k}.diff": v for k, v in t.items()}, "no pair of LoRA matrices"),
    ],
)
def test_a_lora_for_another_model_is_refused(model: Path, tmp_path: Path, change: Any, says: str) -> None:
    file = write(tmp_path / "style.safetensors", change(matrices(model, 1)))
    outcome = f3prune("calibrate", model, "-o", tmp_path / "run", "--lora", file, "--steps", 1, *SIZES)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"--lora {file}" in outcome.err
    assert says in outcome.err


def test_what_is_no_lora_is_refused(model: Path, tmp_path: Path) -> None:
    for text, says in (
        ("nothing.safetensors", "does not exist"),
        (str(tmp_path), "has 0 .safetensors files"),
        (f"{model / 'model_index.json'}:0.5", "is no .safetensors file"),
        ("style.safetensors:much", "the scale 'much' is no number"),
    ):
        with pytest.raises(InputError, match=says):
            lora_of(text)
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    outcome = f3prune("calibrate", model, "-o", tmp_path / "run", "--lora", tmp_path / "broken.safetensors", *SIZES)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "could not be read" in outcome.err
    outcome = f3prune(
        "calibrate", model / "transformer", "-o", tmp_path / "run", "--lora", tmp_path / "broken.safetensors"
    )
    assert "is a denoiser alone: give the pipeline that it is from" in outcome.err
