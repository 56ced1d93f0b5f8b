"""Synthetic inputs are what the family's pipeline passes, and tiny denoisers are sound."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AllegroPipeline, CogVideoXPipeline, I2VGenXLPipeline
from torch import nn

from f3prune.core.calls import sample_of
from f3prune.core.errors import InputError
from f3prune.core.weights import randomize_weights
from f3prune.exporter._dtype import in_dtype
from f3prune.families import LatentShape, family_of, registry
from f3prune.testing import TINY_SHAPES, VARIANTS, tiny_denoiser


def draw(variant: str, batch: int = 2, seed: int = 3, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, dict]:
    denoiser = in_dtype(tiny_denoiser(variant), dtype)
    generator = torch.Generator().manual_seed(seed)
    return denoiser, family_of(denoiser).synthetic_inputs(denoiser, TINY_SHAPES[variant], batch, generator)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, tuple):
        for part in value:
            yield from tensors(part)


@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_are_accepted_seeded_and_complete(variant: str) -> None:
    denoiser, inputs = draw(variant)
    parameters = inspect.signature(type(denoiser).forward).parameters
    required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty} - {"self"}
    assert required <= set(inputs) <= set(parameters)
    for first, second in zip(tensors(inputs), tensors(draw(variant)[1]), strict=True):
        assert torch.equal(first, second)
    other = draw(variant, seed=4)[1]
    latents = family_of(denoiser).latents
    assert not torch.equal(inputs[latents], other[latents])
    with torch.no_grad():
        output = sample_of(denoiser(**inputs, return_dict=False))
    assert 0.1 < output.std() < 3
    grid = family_of(denoiser).token_grid(denoiser, inputs)
    assert grid.frames >= 3
    for video in (inputs[latents], output):
        assert family_of(denoiser).frames_first(video, grid).shape[0] == grid.frames


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_follow_the_denoisers_dtype(variant: str) -> None:
    denoiser, inputs = draw(variant, batch=1, dtype=torch.bfloat16)
    if getattr(denoiser.config, "is_amplify_history", False):
        pytest.skip("diffusers scales keys of the history in fp32, which its attention does not take")
    assert inputs[family_of(denoiser).latents].dtype == torch.bfloat16
    with torch.no_grad():
        assert sample_of(denoiser(**inputs, return_dict=False)).isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_samples(variant: str) -> None:
    """No sample of a synthetic batch depends on the others, so the batch axis of every argument is right."""
    denoiser, inputs = draw(variant)
    family = family_of(denoiser)
    single: dict[str, Any] = {}
    for name, value in inputs.items():
        batched = isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] % 2 == 0
        batched = batched and name not in ("ofs", *family.not_batched)
        single[name] = value.chunk(2)[1] if batched else value
        if isinstance(value, tuple) and name == "encoder_hidden_states":
            single[name] = tuple(part.chunk(2)[1] for part in value)
    with torch.no_grad():
        both = sample_of(denoiser(**inputs, return_dict=False))
        alone = sample_of(denoiser(**single, return_dict=False))
    assert single[family.latents].shape[0] == 1
    # Kandinsky 5 rounds queries and keys to bf16, where the order of a sum decides.
    assert torch.allclose(both[1:], alone, atol=1e-3 if variant == "kandinsky5" else 1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_token_grid_is_plain_while_the_batch_is_symbolic(variant: str) -> None:
    denoiser, inputs = draw(variant)
    family = family_of(denoiser)
    grids = []

    class Probe(nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            grid = family.token_grid(denoiser, {**inputs, family.latents: latents})
            grids.append(grid)
            return family.frames_first(latents, grid) * 2

    exported = torch.export.export(
        Probe(), (inputs[family.latents],), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},)
    )
    assert all(type(grid.frames) is int and type(grid.tokens_per_frame) is int for grid in grids)
    bigger = torch.cat([inputs[family.latents]] * 2)
    assert exported.module()(bigger).shape[0] == grids[0].frames


@pytest.mark.parametrize("variant", ["cogvideox-rotary", "cogvideox-1.5"])
def test_cogvideox_rotary_embedding_is_the_pipelines(variant: str) -> None:
    denoiser, inputs = draw(variant)
    shape = TINY_SHAPES[variant]
    pipeline = SimpleNamespace(transformer=denoiser, vae_scale_factor_spatial=8)
    expected = CogVideoXPipeline._prepare_rotary_positional_embeddings(
        pipeline, shape.height * 8, shape.width * 8, shape.frames, torch.device("cpu")
    )
    for ours, theirs in zip(inputs["image_rotary_emb"], expected, strict=True):
        assert torch.equal(ours, theirs)


def test_allegro_rotary_embedding_is_the_pipelines() -> None:
    denoiser, inputs = draw("allegro")
    shape = TINY_SHAPES["allegro"]
    pipeline = SimpleNamespace(transformer=denoiser, vae_scale_factor_spatial=8)
    expected = AllegroPipeline._prepare_rotary_positional_embeddings(
        pipeline, 1, shape.height * 8, shape.width * 8, shape.frames, torch.device("cpu")
    )
    for ours, theirs in zip(tensors(inputs["image_rotary_emb"]), tensors(expected), strict=True):
        assert torch.equal(ours, theirs)


def test_i2vgen_xl_image_latents_are_the_pipelines() -> None:
    _, inputs = draw("i2vgen_xl")
    ours = inputs["image_latents"]
    image = ours[:, :, 0]
    # Sampling the autoencoder and scaling are replaced by the image's latents themselves.
    encoded = SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: image))
    pipeline = SimpleNamespace(
        vae=SimpleNamespace(encode=lambda _: encoded, config=SimpleNamespace(scaling_factor=1)),
        do_classifier_free_guidance=False,
    )
    expected = I2VGenXLPipeline.prepare_image_latents(pipeline, image, torch.device("cpu"), ours.shape[2], 1)
    assert torch.equal(ours, expected)


def test_prompts_have_different_lengths_where_they_are_padded() -> None:
    for variant in ("mochi", "hunyuan_video", "hunyuan_video15", "framepack", "ltx", "ltx2", "allegro"):
        _, inputs = draw(variant, batch=3)
        lengths = inputs["encoder_attention_mask"].sum(1).tolist()
        assert len(set(lengths)) == 3
        assert min(lengths) >= 1
        assert max(lengths) < inputs["encoder_attention_mask"].shape[1]


def test_default_shapes_of_published_configurations() -> None:
    cogvideox = {"sample_frames": 49, "temporal_compression_ratio": 4, "sample_height": 60, "sample_width": 90}
    assert registry()["cogvideox"].default_shape(cogvideox) == LatentShape(13, 60, 90)
    newer = {**cogvideox, "sample_frames": 81, "sample_height": 96, "sample_width": 170, "patch_size_t": 2}
    assert registry()["cogvideox"].default_shape(newer) == LatentShape(22, 96, 170)
    assert registry()["latte"].default_shape({"video_length": 16, "sample_size": 64}) == LatentShape(16, 64, 64)
    assert registry()["svd"].default_shape({"num_frames": 25}).frames == 25


@pytest.mark.parametrize("variant", VARIANTS)
def test_default_shape_is_computed_from_a_whole_configuration(variant: str) -> None:
    denoiser = tiny_denoiser(variant)
    shape = family_of(denoiser).default_shape(denoiser.config)
    assert min(shape.frames, shape.height, shape.width) >= 2


def test_pipeline_arguments_fit_the_text_to_the_positions() -> None:
    pipeline = SimpleNamespace(transformer=tiny_denoiser("cogvideox"))
    assert registry()["cogvideox"].pipeline_arguments(pipeline) == {"max_sequence_length": 5}
    assert registry()["wan"].pipeline_arguments(pipeline) == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiny_denoisers_are_seeded_and_nothing_stays_zero(variant: str) -> None:
    first, second, other = tiny_denoiser(variant), tiny_denoiser(variant), tiny_denoiser(variant, seed=1)
    assert not first.training
    # HunyuanVideo 1.5 has a layer of 2048 x 2048 whatever its configuration.
    assert sum(p.numel() for p in first.parameters()) < (4_500_000 if variant == "hunyuan_video15" else 600_000)
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert not torch.equal(a, c), name
        assert a.abs().amax() > 0, name


def test_randomizing_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    randomize_weights(tiny_denoiser("ltx"), 5)
    assert torch.equal(state, torch.get_rng_state())


def test_unknown_tiny_denoiser() -> None:
    with pytest.raises(InputError, match=r"unknown tiny denoiser 'sora'.*cogvideox-1\.5"):
        tiny_denoiser("sora")
