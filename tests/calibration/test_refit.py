"""Refit: closed form against an oracle, folded into the weights, restored with them, refused where it cannot work."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from f3prune.calibration import (
    Masks,
    Refit,
    StagedDenoiser,
    denoise_synthetic,
    load_pruned,
    masked_reference,
    prune_denoiser,
    refit,
    save_pruned,
)
from f3prune.calibration.attention_hook import AttentionHook
from f3prune.calibration.refitting import RIDGE, passes
from f3prune.calibration.replacements.static import FrameMaps
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.weights.lazy_weights import lazy_weights, read_lazily
from f3prune.testing import TINY_SHAPES
from tests.subjects import relative, run, subject_of

CASES = [
    ("cogvideox", "layer", "pooled"),
    ("cogvideox", "head", "local"),
    ("hunyuan_video", "layer", "window"),
    ("hunyuan_video", "head", "drop"),
    ("wan", "layer", "local"),
    ("ltx", "head", "pooled"),
    ("latte", "layer", "static"),
    ("animatediff", "head", "static"),
    ("animatediff", "layer", "local"),
]


def generation(variant: str, batch: int = 4):
    subject = subject_of(variant)
    return lambda: denoise_synthetic(subject.denoiser, TINY_SHAPES[variant], 6, seed=5, batch=batch)


def refitted(variant: str, granularity: str, mode: str, alpha: float = 0.5) -> tuple[Masks, Refit]:
    subject = subject_of(variant)
    return refit(subject.denoiser, subject.masks(alpha, granularity, mode), generation(variant))


@pytest.mark.parametrize(("variant", "granularity", "mode"), CASES)
def test_baked_equals_the_masked_reference_with_its_layers(variant, granularity, mode):
    subject = subject_of(variant)
    masks, fitted = refitted(variant, granularity, mode)
    pruned = prune_denoiser(copy.deepcopy(subject.denoiser), masks, refit=fitted)
    with masked_reference(subject.denoiser, masks, layers=lambda site: fitted.layers(subject.denoiser, site, 0)):
        expected = run(subject.denoiser, subject.inputs)
    assert relative(run(pruned, subject.inputs), expected) < 1e-5
    assert torch.equal(run(subject.denoiser, subject.inputs), subject.dense)


@pytest.mark.parametrize(("variant", "mode"), [("wan", "local"), ("latte", "static"), ("latte", "local")])
def test_a_refitted_site_is_nearer_to_the_dense_one(variant, mode):
    """Of one site alone, whose inputs are those of the dense model: its least squares must lower its own error."""
    subject = subject_of(variant)
    before = subject.masks(1.0, "layer", mode)
    first = min(before.stages[0].sites)
    plain = {n: m if n == first else replace(m, pruned_heads=()) for n, m in before.stages[0].sites.items()}
    before = replace(before, stages=(replace(before.stages[0], sites=plain),))
    after, fitted = refit(subject.denoiser, before, generation(variant))

    def loss(masks: Masks, found: Refit | None) -> float:
        pruned = prune_denoiser(copy.deepcopy(subject.denoiser), masks, refit=found)
        outputs: dict[str, list[torch.Tensor]] = {"dense": [], "pruned": []}
        for name, model in (("dense", subject.denoiser), ("pruned", pruned)):
            module = model.get_submodule(first)
            handle = module.register_forward_hook(lambda m, a, o, name=name: outputs[name].append(o))
            denoise_synthetic(model, TINY_SHAPES[variant], 6, seed=5, batch=4)
            handle.remove()
        # The site is the first, so that its inputs differ by nothing.
        return float(sum((a - b).square().sum() for a, b in zip(outputs["dense"], outputs["pruned"], strict=True)))

    assert loss(after, fitted) < 0.9 * loss(before, None)


def test_the_closed_form_is_that_of_least_squares():
    """Against rows kept whole, with the pull as rows of its own."""
    subject = subject_of("wan")
    masks, fitted = refitted("wan", "layer", "local")
    stage = masks.stages[0]
    name = next(n for n, m in stage.sites.items() if not m.untouched)
    rows: list[torch.Tensor] = []
    lost: list[torch.Tensor] = []

    def watch(call):
        dense, local = call.dense(), stage.sites[name].stand_in.attend(call)
        flat = [t.transpose(1, 2).flatten(2).flatten(0, 1).double() for t in (local, dense - local)]
        rows.append(torch.cat([flat[0], torch.ones(len(flat[0]), 1, dtype=torch.float64)], 1))
        lost.append(flat[1])
        return dense

    with AttentionHook(subject.denoiser, subject.family, {name: watch}), torch.no_grad():
        generation("wan")()
    features, target = torch.cat(rows), torch.cat(lost)
    pull = (RIDGE["spatiotemporal"] * features.square().sum(0)).sqrt()
    pull[-1] = 0.0
    solution = torch.linalg.lstsq(
        torch.cat([features, pull.diag()]), torch.cat([target, target.new_zeros(len(pull), target.shape[1])])
    ).solution
    assert relative(fitted.tensors[f"0/{name}"].double(), solution) < 1e-3


def test_without_a_bias_no_constant_is_fitted():
    """The fit is that of ``Δ`` alone, not the one beside a constant that is then thrown away."""
    subject = subject_of("wan")
    bare = copy.deepcopy(subject.denoiser)
    masks = subject.masks(1.0, "layer", "local")
    names = [site.outputs[0][0] for site in subject.family.find_sites(bare, "all")]
    for name in names:
        bare.get_submodule(name).bias = None
    denoise = lambda: denoise_synthetic(bare, TINY_SHAPES["wan"], 6, seed=5, batch=4)  # noqa: E731
    masks, fitted = refit(bare, masks, denoise)
    site = next(s for s in subject.family.find_sites(bare, "all") if f"0/{s.name}" in fitted.tensors)
    rows: list[torch.Tensor] = []
    lost: list[torch.Tensor] = []

    def watch(call):
        dense, local = call.dense(), masks.stages[0].sites[site.name].stand_in.attend(call)
        flat = [t.transpose(1, 2).flatten(2).flatten(0, 1).double() for t in (local, dense - local)]
        rows.append(flat[0])
        lost.append(flat[1])
        return dense

    with AttentionHook(bare, subject.family, {site.name: watch}), torch.no_grad():
        denoise()
    features, target = torch.cat(rows), torch.cat(lost)
    gram = features.T @ features
    expected = torch.linalg.solve(gram + RIDGE["spatiotemporal"] * gram.diagonal().diag(), features.T @ target)
    found = fitted.tensors[f"0/{site.name}"].double()
    assert relative(found[:-1], expected) < 1e-3
    assert not found[-1].any()
    pruned = prune_denoiser(copy.deepcopy(bare), masks, refit=fitted)
    with masked_reference(bare, masks, layers=lambda one: fitted.layers(bare, one, 0)):
        reference = run(bare, subject.inputs)
    assert relative(run(pruned, subject.inputs), reference) < 1e-5


def test_maps_of_static_are_refitted_too():
    masks, _ = refitted("latte", "layer", "static", alpha=1.0)
    before = subject_of("latte").masks(1.0, "layer", "static")
    assert passes(before) == 2
    assert passes(subject_of("wan").masks(1.0, "layer", "local")) == 1
    for name, mask in masks.stages[0].sites.items():
        assert isinstance(mask.stand_in.maps, FrameMaps)
        assert mask.stand_in.maps != before.stages[0].sites[name].stand_in.maps


def test_text_has_a_layer_of_its_own_or_a_say():
    """HunyuanVideo's two-stream blocks project text apart: that layer stays as it is."""
    subject = subject_of("hunyuan_video")
    masks, fitted = refitted("hunyuan_video", "layer", "local", alpha=1.0)
    pruned = prune_denoiser(copy.deepcopy(subject.denoiser), masks, refit=fitted)
    apart = [site for site in subject.family.find_sites(subject.denoiser, "all") if len(site.outputs) > 1]
    assert apart
    for site in apart:
        (video, _), (text, _) = site.outputs
        assert torch.equal(pruned.get_submodule(text).weight, subject.denoiser.get_submodule(text).weight)
        assert not torch.equal(pruned.get_submodule(video).weight, subject.denoiser.get_submodule(video).weight)


@pytest.mark.parametrize(("variant", "granularity", "mode"), [("wan", "layer", "local"), ("latte", "head", "static")])
def test_it_is_saved_with_the_weights(variant, granularity, mode, tmp_path):
    subject = subject_of(variant)
    masks, fitted = refitted(variant, granularity, mode)
    pruned = prune_denoiser(copy.deepcopy(subject.denoiser), masks, refit=fitted)
    save_pruned(pruned, tmp_path / "pruned")
    assert torch.equal(run(load_pruned(tmp_path / "pruned"), subject.inputs), run(pruned, subject.inputs))
    fitted.save(tmp_path / "refit.safetensors")
    again = Refit.load(tmp_path / "refit.safetensors")
    assert again.digest == fitted.digest == masks.refit
    assert Masks.from_json(masks.to_json()) == masks


def test_lazy_weights_stay_lazy(tmp_path):
    subject = subject_of("wan")
    masks, fitted = refitted("wan", "head", "local")
    subject.denoiser.save_pretrained(tmp_path)
    lazy = copy.deepcopy(subject.denoiser)
    lazy.load_state_dict(read_lazily(tmp_path / "diffusion_pytorch_model.safetensors"), assign=True)
    prune_denoiser(lazy, masks, refit=fitted)
    waiting = {name for name, _ in lazy_weights(lazy)}
    site = next(s for s in subject.family.find_sites(subject.denoiser, "all") if f"0/{s.name}" in fitted.tensors)
    assert {f"{site.outputs[0][0]}.weight", f"{site.outputs[0][0]}.bias"} <= waiting
    eager = prune_denoiser(copy.deepcopy(subject.denoiser), masks, refit=fitted)
    assert relative(run(lazy, subject.inputs), run(eager, subject.inputs)) < 1e-6


def test_each_stage_has_a_fit_of_its_own():
    subject = subject_of("wan")
    whole = subject.masks(1.0, "layer", "local")
    (one,) = whole.stages
    high, low = one.timesteps
    middle = subject.calibration.timesteps[1]
    stages = (replace(one, steps=(0, 2), timesteps=(high, middle)), replace(one, steps=(2, 3), timesteps=(low, low)))
    masks, fitted = refit(subject.denoiser, replace(whole, stages=stages), generation("wan"))
    assert {name.partition("/")[0] for name in fitted.tensors} == {"0", "1"}
    baked = [prune_denoiser(copy.deepcopy(subject.denoiser), masks, stage, refit=fitted) for stage in (0, 1)]
    late = {**subject.inputs, "timestep": torch.full((2,), float(low))}
    assert torch.equal(run(StagedDenoiser(masks, baked), late), run(baked[1], late))
    assert relative(run(baked[0], subject.inputs), run(baked[1], subject.inputs)) > 1e-6
    with pytest.raises(InputError, match="saw no call of stage 0"):
        refit(subject.denoiser, replace(whole, stages=stages), lambda: run_at(subject, low))


def run_at(subject, timestep):
    with torch.no_grad():
        subject.denoiser(**{**subject.inputs, "timestep": torch.full((2,), float(timestep))})


def test_masks_and_refit_belong_together(tmp_path):
    subject = subject_of("wan")
    masks, fitted = refitted("wan", "layer", "local")
    with pytest.raises(InputError, match="these masks were refitted"):
        prune_denoiser(copy.deepcopy(subject.denoiser), masks)
    with pytest.raises(InputError, match="made for other masks"):
        prune_denoiser(copy.deepcopy(subject.denoiser), subject.masks(0.5, "layer", "local"), refit=fitted)
    fitted.save(tmp_path / "refit.safetensors")
    data = bytearray((tmp_path / "refit.safetensors").read_bytes())
    data[-1] ^= 64
    (tmp_path / "refit.safetensors").write_bytes(data)
    with pytest.raises(ArtifactError, match="was altered"):
        Refit.load(tmp_path / "refit.safetensors")


def test_what_cannot_be_refitted_is_refused():
    wan = subject_of("wan")
    with pytest.raises(InputError, match="layers and heads"):
        refit(subject_of("latte").denoiser, subject_of("latte").masks(0.5, "frame-pair", "local"), generation("latte"))
    with pytest.raises(InputError, match="nothing to refit"):
        refit(wan.denoiser, wan.masks(0.5, "layer", "drop"), generation("wan"))
    few = subject_of("latte")
    smallest = replace(TINY_SHAPES["latte"], frames=1, height=2, width=2)
    with pytest.raises(InputError, match=r"fewer than its \d+ channels"):
        refit(few.denoiser, few.masks(1.0, "layer", "local"), lambda: denoise_synthetic(few.denoiser, smallest, 1, 1))
