"""Tune-A-Video's sparse-causal attention as sites of their own: measured, pruned and exported."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from subjects import relative, run, subject_of

from f3prune.calibration import (
    Masks,
    PruneConfig,
    calibrate,
    denoise_synthetic,
    load_pruned,
    masked_reference,
    prune_denoiser,
    save_pruned,
    select_masks,
)
from f3prune.calibration.attention_hook import AttentionHook
from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.frame_mass import attention_with_mass, frame_mass
from f3prune.core.errors import InputError, UnknownSiteError
from f3prune.families import registry
from f3prune.testing import TINY_SHAPES, tiny_denoiser

VARIANT = "tune_a_video"
UNITS = [("layer", "local"), ("layer", "drop"), ("head", "local"), ("head", "drop")]


@functools.cache
def measured(kind):
    denoiser = tiny_denoiser(VARIANT)
    return calibrate(denoiser, lambda: denoise_synthetic(denoiser, TINY_SHAPES[VARIANT], 3, batch=2), sites=kind)


def pruned(masks):
    return prune_denoiser(copy.deepcopy(subject_of(VARIANT).denoiser), masks)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_the_kinds_of_sites():
    denoiser, family = subject_of(VARIANT).denoiser, registry()[VARIANT]
    sites = {kind: family.find_sites(denoiser, kind) for kind in ("temporal", "sparse-causal", "all")}
    assert {site.layout for site in sites["sparse-causal"]} == {"sparse-causal"}
    assert all(site.name.endswith(".attn1") for site in sites["sparse-causal"])
    assert set(sites["all"]) == {*sites["temporal"], *sites["sparse-causal"]}
    assert len(sites["all"]) == 2 * len(sites["temporal"])
    assert measured("all").sites.keys() == {site.name for site in sites["all"]}
    latte = tiny_denoiser("latte")
    with pytest.raises(InputError, match="family latte has no sparse-causal attention"):
        registry()["latte"].find_sites(latte, "sparse-causal")
    assert registry()["latte"].find_sites(latte, "all") == registry()["latte"].find_sites(latte)
    with pytest.raises(InputError, match="`sites` is 'spatial', expected one of temporal, sparse-causal, all"):
        family.find_sites(denoiser, "spatial")


def test_mass_is_what_a_plain_softmax_gives():
    subject = subject_of(VARIANT)
    sites = subject.family.find_sites(subject.denoiser, "sparse-causal")
    calls = []

    def keep(call):
        calls.append(call)
        return call.dense()

    with AttentionHook(subject.denoiser, subject.family, {site.name: keep for site in sites}):
        assert torch.equal(run(subject.denoiser, subject.inputs), subject.dense)
    for call in calls:
        frames, n = subject.grid.frames, call.query.shape[2]
        probabilities = (call.query @ call.key.transpose(-1, -2) * call.scale).softmax(-1)
        halves = probabilities.unflatten(0, (-1, frames)).unflatten(-1, (2, n)).sum(-1).mean((0, 3))
        expected = torch.zeros(call.query.shape[1], frames, frames + 1)
        for i in range(frames):
            expected[:, i, 0] += halves[i, :, 0]
            expected[:, i, max(0, i - 1)] += halves[i, :, 1]
        torch.testing.assert_close(frame_mass(call), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(frame_mass(call, block_bytes=1), expected, atol=1e-6, rtol=0)
        output, mass = attention_with_mass(call)
        torch.testing.assert_close(output, call.dense(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mass, expected, atol=1e-6, rtol=0)
        samples = [frame_mass(call, 2, torch.Generator().manual_seed(k)) for k in range(300)]
        torch.testing.assert_close(torch.stack(samples).mean(0), expected, atol=0.05, rtol=0)


def test_rows_sum_to_one_and_fall_on_the_first_and_the_former_frame(tmp_path):
    measured("sparse-causal").save(tmp_path / "aas.safetensors")
    for mass in Calibration.load(tmp_path / "aas.safetensors").mass.values():
        frames = mass.shape[2]
        torch.testing.assert_close(mass.sum(-1), torch.ones(mass.shape[:3]), atol=1e-5, rtol=0)
        seen = torch.zeros(frames, frames + 1, dtype=torch.bool)
        for i in range(frames):
            seen[i, [0, max(0, i - 1)]] = True
        assert mass[..., ~seen].abs().max() == 0


@pytest.mark.parametrize(("granularity", "mode"), UNITS)
@pytest.mark.parametrize("kind", ["sparse-causal", "all"])
def test_baked_is_the_masked_reference_and_nothing_pruned_is_the_dense_model(kind, granularity, mode, tmp_path):
    subject = subject_of(VARIANT)
    for alpha in (0.5, 1.0):
        masks = select_masks(measured(kind), PruneConfig(alpha, granularity, mode=mode, score="aas"))
        assert Masks.from_json(masks.to_json()) == masks
        with masked_reference(subject.denoiser, masks):
            reference = run(subject.denoiser, subject.inputs)
        assert relative(reference, subject.dense) > 1e-4
        baked = pruned(masks)
        assert relative(run(baked, subject.inputs), reference) < 1e-5
        # Attention within a frame keeps its projections; fully pruned temporal sites lose theirs.
        fewer = mode == "drop" or (kind == "all" and alpha == 1.0)
        assert not fewer or parameters(baked) < parameters(subject.denoiser)
    assert torch.equal(run(subject.denoiser, subject.inputs), subject.dense), "the reference left traces"
    save_pruned(baked, tmp_path)
    torch.testing.assert_close(
        run(load_pruned(tmp_path), subject.inputs), run(baked, subject.inputs), atol=1e-5, rtol=0
    )
    nothing = select_masks(measured(kind), PruneConfig(0.0, granularity, mode=mode, score="aas"))
    assert torch.equal(run(pruned(nothing), subject.inputs), subject.dense)


def test_local_frames_no_longer_meet_in_attention():
    """A fully local site is self-attention of every frame by itself: half the keys, nothing gathered."""
    baked = pruned(select_masks(measured("sparse-causal"), PruneConfig(1.0, score="aas")))
    attention = baked.get_submodule(next(iter(measured("sparse-causal").sites)))
    tokens = torch.randn(6, 5, attention.to_q.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = attention(tokens, 3), torch.cat([attention(frame[None], 1) for frame in tokens])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_frame_pairs_are_refused_and_sites_can_be_protected():
    with pytest.raises(InputError, match=r"frame-pair has no meaning at .*attn1.*`granularity='layer'` or `'head'`"):
        select_masks(measured("all"), PruneConfig(0.5, "frame-pair", score="aas"))
    masks = select_masks(measured("all"), PruneConfig(0.5, "frame-pair", protect=("*.attn1",), score="aas"))
    subject = subject_of(VARIANT)
    with masked_reference(subject.denoiser, masks):
        reference = run(subject.denoiser, subject.inputs)
    assert relative(run(pruned(masks), subject.inputs), reference) < 1e-5


def test_masks_of_another_model_are_refused():
    masks = select_masks(measured("sparse-causal"), PruneConfig(0.5, score="aas"))
    smaller = type(subject_of(VARIANT).denoiser)(
        **{
            **{k: v for k, v in subject_of(VARIANT).denoiser.config.items() if not k.startswith("_")},
            "down_block_types": ("DownBlock3D", "DownBlock3D"),
        }
    )
    with pytest.raises(UnknownSiteError, match="1 sites differ"):
        prune_denoiser(smaller, masks)


@pytest.mark.slow(reason="exports a UNet")
def test_onnxruntime_equals_baked(tmp_path):
    from f3prune.engines import BuildConfig, build_engine, open_session
    from f3prune.exporter import ExportConfig, export_denoiser, flatten_arguments

    subject = subject_of(VARIANT)
    masks = select_masks(measured("all"), PruneConfig(0.5, "head", score="aas"))
    baked = pruned(masks)
    result = export_denoiser(baked, subject.inputs, tmp_path / "onnx", ExportConfig(self_test=False))
    build_engine(
        result.path,
        tmp_path / "engine",
        BuildConfig(cache=False, threads=1, batch=(1, 2, 3)),
        masks_digest=masks.digest,
    )
    with open_session(tmp_path / "engine") as session:
        inputs = subject.family.synthetic_inputs(
            subject.denoiser, TINY_SHAPES[VARIANT], 3, torch.Generator().manual_seed(7)
        )
        (output,) = session.run(flatten_arguments(inputs).tensors).values()
    assert relative(output, run(baked, inputs)) < 1e-4


def test_the_option_reaches_calibration(tmp_path):
    from f3prune.core.run_directory import RunDirectory
    from f3prune.steps.calibrate import CalibrateOptions
    from f3prune.steps.calibrate import calibrate as step

    tiny_denoiser(VARIANT).save_pretrained(tmp_path / "unet")
    for kind in ("sparse-causal", "temporal"):
        directory = RunDirectory.create(tmp_path / kind)
        entry, made = step(directory, CalibrateOptions(str(tmp_path / "unet"), sites=kind))
        assert made
        found = Calibration.load(directory.path / "aas.safetensors")
        assert {site.layout for site in found.sites.values()} == {kind}
        assert entry.options["sites"] == kind
