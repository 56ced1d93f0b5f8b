"""Checkpoints as people have them: variants side by side, shards, weights that do not fit, quantised ones, NaN."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import f3prune
from safetensors.torch import load_file, save_file
from tiny_pipelines import MAKERS, wan

from f3prune.calibration import load_pruned
from f3prune.core.checkpoints.weight_files import variants_of, weight_files
from f3prune.core.errors import InputError
from f3prune.pipelines.loading import load_denoiser, load_pipeline, stored_dtype
from f3prune.pipelines.sources import resolve

SIZES = [word for name, value in MAKERS["wan"][1].items() for word in (f"--{name.replace('_', '-')}", value)]
SMALL = ["--num-prompts", 1, "--steps", 2, *SIZES]
WEIGHTS = "diffusion_pytorch_model.safetensors"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pipeline in fp32; in fp16 as a variant, whole and in shards; and both in one directory."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    pipeline = wan()
    pipeline.save_pretrained(folder / "plain")
    pipeline.save_pretrained(folder / "shards", max_shard_size="20KB")
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder / "half", variant="fp16")
    pipeline.save_pretrained(folder / "half-shards", variant="fp16", max_shard_size="20KB")
    shutil.copytree(folder / "plain", folder / "both")
    for file in (folder / "half").rglob("*.fp16.safetensors"):
        shutil.copy(file, folder / "both" / file.relative_to(folder / "half"))
    return folder


def weights(pipeline: Any) -> Weights:
    return {
        f"{name}.{key}": value.float()
        for name in ("transformer", "text_encoder", "vae")
        for key, value in getattr(pipeline, name).state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "variant", "count"),
    [("plain", None, 1), ("both", None, 1), ("both", "fp16", 1), ("half", "fp16", 1), ("half-shards", "fp16", 2)],
)
def test_a_pipeline_has_the_weights_of_the_variant(saved: Path, name: str, variant: str | None, count: int) -> None:
    source = resolve(str(saved / name), variant=variant)
    reference = weights(load_pipeline(resolve(str(saved / "plain"))))
    found = weights(load_pipeline(source))
    expected = {key: value.half().float() if variant else value for key, value in reference.items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    files = weight_files(source.denoiser_path, variant)
    assert len(files) >= count
    assert all((".fp16" in file.name) == (variant is not None) for file in files)
    assert stored_dtype(source) == (torch.float16 if variant else torch.float32)
    for lazy in (False, True):
        alone = load_denoiser(source, lazy=lazy).state_dict()
        assert all(torch.equal(value.float(), expected[f"transformer.{key}"]) for key, value in alone.items())


def test_an_old_file_beside_shards_is_read_as_each_library_does(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "shards", tmp_path / "stale")
    for part, name in (("transformer", WEIGHTS), ("text_encoder", "model.safetensors")):
        state = load_file(saved / "plain" / part / name)
        save_file({key: value + 1 for key, value in state.items()}, folder / part / name, metadata={"format": "pt"})
        (one, *more) = weight_files(folder / part)
        # Where the libraries look first: diffusers for shards, transformers for the file.
        assert (one.name == name) == (part == "text_encoder") == (not more)
    found, plain = (weights(load_pipeline(resolve(str(where)))) for where in (folder, saved / "plain"))
    for key, value in plain.items():
        assert torch.equal(found[key], value + 1 if key.startswith("text_encoder") else value), key


def test_the_digest_is_of_what_is_read(saved: Path, tmp_path: Path) -> None:
    plain, both = resolve(str(saved / "plain")), resolve(str(saved / "both"))
    assert plain.digest() == both.digest()
    half = resolve(str(saved / "both"), variant="fp16")
    assert half.digest() == resolve(str(saved / "half"), variant="fp16").digest() != plain.digest()


def test_a_variant_has_to_be_named_and_to_exist(saved: Path) -> None:
    assert variants_of(saved / "half" / "transformer") == ["fp16"]
    for folder in (saved / "half", saved / "half-shards", saved / "half" / "transformer"):
        with pytest.raises(InputError, match=r"variant fp16 alone: give `variant='fp16'`"):
            resolve(str(folder))
    with pytest.raises(InputError, match=r"`variant` 'bf16': no weights of .* have it, there is fp16"):
        resolve(str(saved / "both"), variant="bf16")
    with pytest.raises(InputError, match=r"`variant` 'fp16': .* there is none: leave it out"):
        resolve(str(saved / "plain"), variant="fp16")


def test_nothing_pruned_is_the_dense_model_bit_for_bit(saved: Path, tmp_path: Path) -> None:
    dense = load_denoiser(resolve(str(saved / "plain"))).state_dict()
    for variant in (None, "fp16"):
        run = tmp_path / str(variant)
        given = ["--variant", variant] if variant else []
        assert f3prune("calibrate", saved / "both", "-o", run, *given, *SMALL).code == 0
        assert f3prune("prune", run, "--alpha", 0, "--score", "aas").code == 0
        pruned = load_pruned(run / "pruned").state_dict()
        assert pruned.keys() == dense.keys()
        for name, value in pruned.items():
            # Some weights are kept in fp32, whatever they were stored in.
            assert torch.equal(value, dense[name].half().to(value.dtype) if variant else dense[name])
        assert pruned["blocks.0.attn1.to_q.weight"].dtype == (torch.float16 if variant else torch.float32)


def altered(saved: Path, folder: Path, part: str, change: Callable[[Weights], Weights]) -> Path:
    """A copy of the plain pipeline with other weights in one part."""
    shutil.copytree(saved / "plain", folder)
    (file,) = weight_files(folder / part)
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def without(name: str) -> Callable[[Weights], Weights]:
    return lambda state: {key: value for key, value in state.items() if key != name}


QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"


def scaled(state: Weights) -> Weights:
    """As fp8 checkpoints keep matrices: divided by a scale, which stands beside them."""
    scales = {
        key.replace(".weight", ".scale_weight"): torch.tensor(0.5) for key, value in state.items() if value.ndim == 2
    }
    return {k: v.div(0.5).to(torch.float8_e4m3fn) if v.ndim == 2 else v for k, v in state.items()} | scales


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("transformer", without("proj_out.weight"), ("transformer of", "lacks proj_out.weight")),
        ("transformer", without("blocks.1.attn1.to_q.bias"), ("lacks blocks.1.attn1.to_q.bias",)),
        ("transformer", lambda s: s | {"gate.weight": torch.ones(4)}, ("has unknown gate.weight",)),
        ("transformer", lambda s: {f"_orig_mod.{k}": v for k, v in s.items()}, ("begin with '_orig_mod.'", " more")),
        ("transformer", scaled, ("transformer of", "is quantised", "scale_weight")),
        ("text_encoder", without(QUERY), ("text_encoder of", f"lacks {QUERY}")),
        ("text_encoder", lambda s: s | {"gate.weight": torch.ones(4)}, ("text_encoder of", "unknown gate.weight")),
        ("vae", without("decoder.conv_in.bias"), ("vae of", "lacks decoder.conv_in.bias")),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    saved: Path, tmp_path: Path, part: str, change: Callable[[Weights], Weights], says: tuple[str, ...]
) -> None:
    folder = altered(saved, tmp_path / "model", part, change)
    done = f3prune("calibrate", folder, "-o", tmp_path / "run", *SMALL)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert all(text in done.err for text in says), done.err
    assert not (tmp_path / "run").exists()
    if part == "transformer":
        for lazy in (False, True):
            with pytest.raises(InputError):
                load_denoiser(resolve(str(folder / "transformer")), lazy=lazy)


def test_buffers_that_older_libraries_saved_are_no_misfits(saved: Path, tmp_path: Path) -> None:
    extra = {"text_model.embeddings.position_ids": torch.arange(8)}
    folder = altered(saved, tmp_path / "model", "text_encoder", lambda state: state | extra)
    load_pipeline(resolve(str(folder)))


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_quantised_checkpoints_are_named(saved: Path, tmp_path: Path, part: str) -> None:
    folder = shutil.copytree(saved / "plain", tmp_path / "model")
    config = json.loads((folder / part / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / part / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"{part} of .* is quantised \(bitsandbytes\).*fp32, fp16 or bf16"):
        resolve(str(folder))


def test_numbers_that_are_none_name_step_and_site(saved: Path, tmp_path: Path) -> None:
    cases = {"proj_out.bias": (2, "blocks.0.attn1"), "blocks.1.attn1.to_k.bias": (1, "blocks.1.attn1")}
    for name, (step, site) in cases.items():
        broken = altered(
            saved,
            tmp_path / name,
            "transformer",
            lambda state, name=name: state | {name: torch.full_like(state[name], torch.nan)},
        )
        done = f3prune("calibrate", broken, "-o", tmp_path / "run", *SMALL)
        assert done.code == 2
        assert f"site {site} computed numbers that are not finite at step {step} (timestep " in done.err
        assert not (tmp_path / "run").exists()
