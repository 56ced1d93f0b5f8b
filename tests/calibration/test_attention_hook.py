"""The attention hook is reversible, survives copies, and never lets a site stay dense unnoticed."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from f3prune.calibration import PruneConfig, calibrate, denoise_synthetic, prune_denoiser, select_masks
from f3prune.calibration.attention_hook import AttentionCall, AttentionHook
from f3prune.calibration.bake.attention import KeptPairs, ReplacedHeads
from f3prune.calibration.replacements import Local
from f3prune.core.calls import sample_of
from f3prune.core.errors import InputError
from f3prune.families import Site, TokenGrid, family_of
from f3prune.testing import TINY_SHAPES, tiny_denoiser


def inputs_of(denoiser, name, batch=1):
    return family_of(denoiser).synthetic_inputs(denoiser, TINY_SHAPES[name], batch, torch.Generator().manual_seed(0))


def run(denoiser, inputs):
    with torch.no_grad():
        return sample_of(denoiser(**inputs, return_dict=False))


def test_attach_and_detach_leave_no_trace():
    denoiser = tiny_denoiser("cogvideox")
    inputs = inputs_of(denoiser, "cogvideox")
    site = family_of(denoiser).find_sites(denoiser)[0].name
    module = denoiser.get_submodule(site)
    before, cls, attributes = run(denoiser, inputs), type(module), set(vars(module))
    hook = AttentionHook(denoiser, family_of(denoiser), {site: lambda call: torch.zeros_like(call.query)})
    with hook:
        assert isinstance(module, cls)
        assert inspect.signature(module.forward) == inspect.signature(cls.forward.__get__(module))
        assert not torch.equal(run(denoiser, inputs), before)
    assert type(module) is cls
    assert set(vars(module)) == attributes
    assert not denoiser._forward_pre_hooks
    assert torch.equal(run(denoiser, inputs), before)


def test_a_copy_of_a_pruned_denoiser_stands_alone():
    denoiser = tiny_denoiser("wan")
    inputs = inputs_of(denoiser, "wan")
    calibration = calibrate(denoiser, lambda: denoise_synthetic(denoiser, TINY_SHAPES["wan"], 2))
    prune_denoiser(denoiser, select_masks(calibration, PruneConfig(0.5, "head", score="aas")))
    twin = copy.deepcopy(denoiser)
    expected = run(denoiser, inputs)
    for parameter in denoiser.parameters():
        parameter.data.zero_()
    assert torch.equal(run(twin, inputs), expected)


def test_attaching_twice_and_pruning_twice_are_refused():
    denoiser = tiny_denoiser("cogvideox")
    family = family_of(denoiser)
    site = family.find_sites(denoiser)[0].name
    with AttentionHook(denoiser, family, {site: AttentionCall.dense}), pytest.raises(InputError, match="already has"):
        AttentionHook(denoiser, family, {site: AttentionCall.dense}).attach()
    calibration = calibrate(denoiser, lambda: denoise_synthetic(denoiser, TINY_SHAPES["cogvideox"], 1))
    prune_denoiser(denoiser, select_masks(calibration, PruneConfig(0.5, score="aas")))
    with pytest.raises(InputError, match="already pruned"):
        prune_denoiser(denoiser, select_masks(calibration, PruneConfig(0.5, score="aas")))


def test_a_site_that_bypasses_the_hook_is_an_error():
    denoiser = tiny_denoiser("cogvideox")
    family = family_of(denoiser)
    name = family.find_sites(denoiser)[0].name

    class Eager:
        def __call__(self, attn, hidden_states, encoder_hidden_states, **kwargs):
            return hidden_states, encoder_hidden_states

    denoiser.get_submodule(name).set_processor(Eager())
    with AttentionHook(denoiser, family, {name: AttentionCall.dense}), pytest.raises(InputError, match="stay dense"):
        run(denoiser, inputs_of(denoiser, "cogvideox"))


def test_an_adapter_at_a_pruned_site_is_refused_by_name():
    denoiser = tiny_denoiser("animatediff")
    shape = TINY_SHAPES["animatediff"]
    masks = select_masks(
        calibrate(denoiser, lambda: denoise_synthetic(denoiser, shape, 1)), PruneConfig(1.0, score="aas")
    )
    name = f"{family_of(denoiser).find_sites(denoiser)[0].name}.to_v"

    class LoraLinear(nn.Linear):
        pass

    denoiser.get_submodule(name).__class__ = LoraLinear
    with pytest.raises(InputError, match=f"{name} is LoraLinear"):
        prune_denoiser(denoiser, masks)


def hand_call(value):
    """Two frames of one token each and one text token behind; equal scores everywhere."""
    query = torch.zeros(1, 1, 3, 1)
    return AttentionCall(
        Site("s", "spatiotemporal", 1, 1, (), (), ()), query, query, torch.tensor(value).view(1, 1, 3, 1), None, 1.0,
        grid=TokenGrid(2), text_before=0, text_after=1,
    )  # fmt: skip


def test_local_and_pair_attention_by_hand():
    """With equal scores attention is a plain mean over what is kept."""
    call = hand_call([1.0, 3.0, 8.0])
    assert ReplacedHeads(0, Local().attend)(call).flatten().tolist() == [4.5, 5.5, 8.0]
    assert KeptPairs(((0,), (0, 1)))(call).flatten().tolist() == [4.5, 4.0, 4.0]
    assert call.dense().flatten().tolist() == [4.0, 4.0, 4.0]


def test_frame_pairs_refuse_another_number_of_frames():
    with pytest.raises(InputError, match="pruned by frame pairs for 3 frames"):
        KeptPairs(((0,), (1,), (2,)))(hand_call([1.0, 2.0, 3.0]))


def test_cost_follows_the_kept_pairs(monkeypatch):
    """Count the scores that baked attention computes: exactly the kept pairs, plus text."""
    scores = 0
    plain = F.scaled_dot_product_attention

    def counting(query, key, *args, **kwargs):
        nonlocal scores
        scores += query.shape[:-1].numel() * key.shape[-2]
        return plain(query, key, *args, **kwargs)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", counting)
    query = torch.randn(1, 2, 4 * 3, 5)
    site = Site("s", "spatiotemporal", 2, 5, (), (), ())
    call = AttentionCall(site, query, query, query, None, 1.0, TokenGrid(4, 1, 3), 0, 0)
    kept = ((0,), (0, 1), (1, 2, 3), (3,))
    KeptPairs(kept)(call)
    assert scores == 2 * 9 * sum(map(len, kept))
