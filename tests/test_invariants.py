"""The six invariants of a pruned model, for every family, on tiny random denoisers."""

from __future__ import annotations

import pytest
import torch
from subjects import EACH, relative, run, subject_of, whole

from f3prune.calibration import load_pruned, masked_reference, save_pruned
from f3prune.core.errors import ArtifactError
from f3prune.testing import VARIANTS

LOOSER = {"kandinsky5": 1e-4}
"""It rounds queries and keys to bf16 in any dtype, so that the order of a sum may decide about a bit."""


@pytest.fixture(params=VARIANTS)
def subject(request):
    return subject_of(request.param)


def test_1_rows_of_frame_mass_sum_to_one(subject):
    for name, mass in subject.calibration.mass.items():
        steps, heads, frames, columns = mass.shape
        assert (steps, columns) == (3, frames + 1), name
        assert heads == subject.calibration.sites[name].heads
        torch.testing.assert_close(mass.sum(-1), torch.ones(steps, heads, frames), atol=1e-5, rtol=0)


def test_2_alpha_zero_is_the_dense_model_bit_for_bit(subject):
    assert torch.equal(whole(subject.pruned(0.0), subject.inputs), whole(subject.denoiser, subject.inputs))


@pytest.mark.parametrize("mode", ["local", "drop"])
def test_3_fully_pruned_frames_do_not_see_each_other(subject, mode):
    if not subject.family.only_path_between_frames:
        pytest.skip(f"{subject.family.title} also relates frames by convolutions or normalisation over time")
    pruned = subject.pruned(1.0, "layer", mode)
    altered = {k: v.clone() if torch.is_tensor(v) else v for k, v in subject.inputs.items()}
    subject.family.frames_first(altered[subject.family.latents], subject.grid)[1].add_(1.0)
    before, after = run(pruned, subject.inputs), run(pruned, altered)
    change = (subject.family.frames_first(after - before, subject.grid)).abs().flatten(1).amax(1)
    dense = (subject.family.frames_first(run(subject.denoiser, altered) - subject.dense, subject.grid)).abs()
    others = [i for i in range(subject.grid.frames) if i != 1]
    assert change[1] > 0
    assert change[others].max() == 0
    assert dense.flatten(1).amax(1)[others].min() > 0, "the dense model relates no frames: the test shows nothing"


@pytest.mark.parametrize(("variant", "granularity", "mode"), EACH)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_4_baked_equals_masked_reference(alpha, variant, granularity, mode):
    subject = subject_of(variant)
    masks = subject.masks(alpha, granularity, mode)
    with masked_reference(subject.denoiser, masks):
        reference = whole(subject.denoiser, subject.inputs)
    dense = whole(subject.denoiser, subject.inputs)
    assert relative(reference, dense) > 1e-4, "pruning changed nothing: the test shows nothing"
    baked = whole(subject.pruned(alpha, granularity, mode), subject.inputs)
    assert relative(baked, reference) < LOOSER.get(variant, 1e-5)
    assert torch.equal(dense[: subject.dense.numel()], subject.dense.flatten()), "the reference left traces"


@pytest.mark.parametrize(("variant", "granularity", "mode"), EACH)
def test_5_parameters_go_down_as_the_masks_say(variant, granularity, mode):
    subject = subject_of(variant)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    dense, half, full = count(subject.denoiser), *(count(subject.pruned(a, granularity, mode)) for a in (0.5, 1.0))
    if mode == "drop":
        assert full < half < dense
    elif subject.family.layout == "temporal":
        assert full < dense
        assert half <= dense
    else:
        assert full == half == dense, "frame-local attention keeps its projections"


@pytest.mark.parametrize(("variant", "granularity", "mode"), EACH)
def test_6_saved_model_is_the_same_and_damage_is_noticed(variant, granularity, mode, tmp_path):
    subject = subject_of(variant)
    pruned = subject.pruned(0.5, granularity, mode)
    save_pruned(pruned, tmp_path)
    loaded = load_pruned(tmp_path)
    assert type(loaded) is type(subject.denoiser)
    assert torch.equal(whole(loaded, subject.inputs), whole(pruned, subject.inputs))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(ArtifactError):
        load_pruned(tmp_path)
