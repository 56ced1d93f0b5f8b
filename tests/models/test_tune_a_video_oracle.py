"""Tune-A-Video's UNet against what the original computed, on random weights."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from f3prune.calibration.measure import FrameMassRecorder
from f3prune.models import TuneAVideoUNet

ORACLE = Path(__file__).resolve().parents[2].parent / "shared" / "oracle" / "tune-a-video"
BOUND = 2e-5
RUNS = ["t1", "t500", "t981", "per_sample_t", "single_frame_t500", "odd_size_t500"]

pytestmark = pytest.mark.skipif(
    not ORACLE.is_dir(),
    reason=f"the original's recorded outputs are not in {ORACLE.parents[1].name}/ beside this checkout",
)


class Case:
    """One fixture: its facts, its arrays by prefix, and our model with its weights."""

    def __init__(self, name):
        self.facts = json.loads((ORACLE / f"{name}.json").read_text())
        with np.load(ORACLE / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}

    def under(self, prefix):
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}

    @functools.cached_property
    def model(self):
        model = TuneAVideoUNet(**self.facts["config"]).eval()
        model.load_state_dict(self.under("param/"), strict=True)
        return model

    def run(self, name):
        run = next(r for r in self.facts["runs"] if r["name"] == name)
        inputs = (self.arrays[run[key]] for key in ("sample", "timestep", "encoder_hidden_states"))
        with torch.no_grad():
            return self.model(*inputs).sample, self.arrays[run["out"]]


case = functools.cache(Case)


def distance(ours, theirs):
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["case1_two_level", "case2_three_level"])
def test_every_forward_is_the_originals(name, run):
    assert {r["name"] for r in case(name).facts["runs"]} == set(RUNS)
    assert distance(*case(name).run(run)) < BOUND


def test_modules_inside_are_the_originals():
    subject = case("case1_two_level")
    expected = subject.under("act/")
    seen = {}

    def keep(name):
        def hook(_module, _args, output):
            seen[name] = output[-1] if isinstance(output, list) else output

        return hook

    handles = [subject.model.get_submodule(name).register_forward_hook(keep(name)) for name in expected]
    try:
        subject.run("t500")
    finally:
        for handle in handles:
            handle.remove()
    errors = {name: distance(seen[name], theirs) for name, theirs in expected.items()}
    assert max(errors.values()) < BOUND, errors


@pytest.mark.parametrize("name", ["case1_two_level", "case2_three_level"])
def test_frame_mass_sums_to_the_originals_attention(name):
    subject = case(name)
    run = next(r for r in subject.facts["runs"] if "aas" in r)
    recorder = FrameMassRecorder(subject.model)
    with recorder.recording():
        subject.run(run["name"])
    mass = recorder.result().mass
    expected = subject.under("aas/")
    assert mass.keys() == expected.keys()
    for site, theirs in expected.items():
        count = run["aas"]["count"][site]
        # One probability row for every video and pixel was added up: a row of sums is their number.
        torch.testing.assert_close(theirs.sum(-1), torch.full(theirs.shape[:2], float(count)), atol=1e-3, rtol=0)
        ours = mass[site][0, :, :, :-1].double() * count
        assert (ours - theirs).abs().max() < 1e-4, site
        assert (mass[site][0, :, :, :-1] - theirs / count).abs().max() < BOUND, site
        assert mass[site][..., -1].abs().max() == 0


def test_inflated_image_model_is_the_originals():
    subject = Case("case5_from2d")
    sample, text = subject.arrays["in/sample"], subject.arrays["in/encoder_hidden_states"]
    model = TuneAVideoUNet.from_2d(image_model(subject))
    theirs = {k: v for k, v in subject.facts["config3d"].items() if not k.startswith("_")}
    assert {key: plain(model.config[key]) for key in theirs} == theirs
    one_frame = sample[:, :, :1]
    with torch.no_grad():
        alone = model(one_frame, subject.arrays["in/timestep"], text).sample
    assert distance(alone, subject.arrays["out/image2d_per_frame"][:, :, :1]) < BOUND

    # The original's biases are random, and part of the fixture; its other new tensors start as ours do.
    new = subject.under("param/")
    ours = model.state_dict()
    assert {name for name in ours if "_temp." in name} == set(new)
    for name, tensor in new.items():
        if not name.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.bias")):
            assert torch.equal(ours[name], tensor), name
    model.load_state_dict(new, strict=False)
    with torch.no_grad():
        video = model(sample, subject.arrays["in/timestep"], text).sample
        alone = model(one_frame, subject.arrays["in/timestep"], text).sample
    assert distance(video, subject.arrays["out/video3d"]) < BOUND
    assert distance(alone, subject.arrays["out/video3d_first_frame_alone"]) < BOUND


def image_model(subject):
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel.from_config(subject.facts["config2d"])
    model.load_state_dict(subject.under("param2d/"), strict=True)
    return model


def plain(value):
    return list(value) if isinstance(value, tuple) else value
