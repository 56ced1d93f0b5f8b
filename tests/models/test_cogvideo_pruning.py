"""What must hold of a pruned CogVideo, whole sequences and cached generation alike."""

import copy

import pytest
import torch
from cogvideo_subject import BEGIN, inputs_of, masks_of, tiny

from f3prune.calibration import calibrate, load_pruned, masked_reference, prune_denoiser, save_pruned
from f3prune.calibration.attention_hook import AttentionHook
from f3prune.core.errors import InputError
from f3prune.families import family_of
from f3prune.models.cogvideo.decoding import Decoding

KINDS = [(1, -1), (1, 2), (2, 2)]
UNITS = [("layer", "local"), ("layer", "drop"), ("head", "local"), ("head", "drop")]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"stage{kind[0]}-window{kind[1]}")
def dense(request):
    return tiny(*request.param)


def test_frame_mass_is_the_softmax_summed_by_frame(dense):
    inputs = inputs_of(dense)
    found = {}

    def handler(call):
        scores = call.query @ call.key.transpose(-1, -2) * call.scale + call.mask
        found[call.site.name] = scores.softmax(-1)
        return call.dense()

    family = family_of(dense)
    with AttentionHook(dense, family, {site.name: handler for site in family.find_sites(dense)}):
        dense(**inputs)
    result = calibrate(dense, lambda: dense(**inputs))
    frames, text = dense.shape.frame_num, dense.shape.text_len
    assert len(result.mass) == dense.shape.num_layers
    for name, mass in result.mass.items():
        naive = found[name].unflatten(2, (frames, -1)).mean(3)
        expected = torch.cat(
            [naive[..., text:].unflatten(-1, (frames, -1)).sum(-1), naive[..., :text].sum(-1, True)], -1
        )
        torch.testing.assert_close(mass[0], expected.mean(0), atol=1e-5, rtol=0)
        torch.testing.assert_close(mass.sum(-1), torch.ones(mass.shape[:-1]), atol=1e-5, rtol=0)


def test_sampled_rows_are_unbiased(dense):
    inputs = inputs_of(dense)
    exact = calibrate(dense, lambda: dense(**inputs)).mass
    whole = calibrate(dense, lambda: dense(**inputs), rows=dense.shape.frame_len).mass
    drawn = [calibrate(dense, lambda: dense(**inputs), rows=4, seed=seed).mass for seed in range(24)]
    for name, mass in exact.items():
        torch.testing.assert_close(whole[name], mass, atol=1e-6, rtol=0)
        samples = torch.stack([found[name] for found in drawn])
        error = samples.mean(0) - mass
        # Twenty-four draws: the mean is within five standard errors everywhere, but for entries that hardly vary.
        assert (error.abs() <= 5 * samples.std(0) / 24**0.5 + 1e-3).all()


def test_nothing_pruned_changes_nothing(dense):
    inputs = inputs_of(dense)
    same = prune_denoiser(copy.deepcopy(dense), masks_of(dense, 0.0))
    assert torch.equal(same(**inputs), dense(**inputs))


@pytest.mark.parametrize(("granularity", "mode"), UNITS)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_baked_equals_masked_dense(dense, alpha, granularity, mode):
    inputs, masks = inputs_of(dense), masks_of(dense, alpha, granularity, mode)
    baked = prune_denoiser(copy.deepcopy(dense), masks)
    with masked_reference(dense, masks):
        expected = dense(**inputs)
    torch.testing.assert_close(baked(**inputs), expected, atol=1e-4, rtol=1e-5)
    assert not torch.equal(baked(**inputs), dense(**inputs))


@pytest.mark.parametrize("mode", ["local", "drop"])
def test_fully_pruned_frames_do_not_hear_of_each_other(dense, mode):
    inputs = inputs_of(dense)
    baked = prune_denoiser(copy.deepcopy(dense), masks_of(dense, 1.0, "layer", mode))
    text, per_frame = dense.shape.text_len, dense.shape.frame_len
    changed = {**inputs, "tokens": inputs["tokens"].clone()}
    changed["tokens"][:, text : text + per_frame] = (changed["tokens"][:, text : text + per_frame] + 1) % BEGIN
    for model, deaf in ((baked, True), (dense, False)):
        before, after = (model(**values)[:, text + per_frame :] for values in (inputs, changed))
        assert torch.equal(before, after) == deaf


@pytest.mark.parametrize(("granularity", "mode"), [*UNITS, ("dense", "local")])
def test_cached_steps_equal_the_whole_sequence(granularity, mode):
    dense = tiny(1)
    alpha, unit = (0.0, "layer") if granularity == "dense" else (0.5, granularity)
    model = prune_denoiser(copy.deepcopy(dense), masks_of(dense, alpha, unit, mode))
    inputs = inputs_of(dense)
    shape, text = dense.shape, dense.shape.text_len
    frames = inputs["tokens"][:, text:].unflatten(1, (shape.frame_num, -1))
    # What the steps will see: begin-of-image first, then the image tokens of the frame.
    inputs["tokens"] = torch.cat([inputs["tokens"][:, :text], _fed(frames).flatten(1)], dim=1)
    inputs["position_ids"] = torch.cat(
        [(inputs["text_mask"].cumsum(1) - 1).clamp(min=0), inputs["position_ids"][:, text:]], dim=1
    )
    expected = model(**inputs)[:, text:].unflatten(1, (shape.frame_num, -1))
    decoding = Decoding(
        model, inputs["tokens"][:, :text], inputs["text_mask"], frames[:, :1], range(shape.frame_num), BEGIN
    )
    dense_bytes = None
    for index in range(1, shape.frame_num):
        decoding.begin_frame()
        for slot in range(shape.frame_len):
            found = decoding.step(_fed(frames)[:, index, slot])
            torch.testing.assert_close(found, expected[:, index, slot], atol=1e-4, rtol=1e-5)
        dense_bytes = decoding.cache_bytes
    slots = {"spatial": text + shape.frame_len, "temporal": text + shape.frame_num * shape.frame_len}
    per_head = 2 * 2 * 4 * shape.head_dim
    local_share = 0.5 if alpha and mode == "local" else 0.0
    dense_share = 0.5 if alpha else 1.0
    heads = shape.num_layers * shape.num_attention_heads
    assert dense_bytes == per_head * heads * (slots["spatial"] * (1 + local_share) + slots["temporal"] * dense_share)


def _fed(frames):
    fed = frames.roll(1, dims=2)
    fed[..., 0] = BEGIN
    return fed


def test_dropping_takes_a_quarter_of_a_layers_weights():
    def count(model):
        return sum(parameter.numel() for parameter in model.layers.parameters())

    dense = tiny()
    dropped = prune_denoiser(copy.deepcopy(dense), masks_of(dense, 1.0, "layer", "drop"))
    width = dense.shape.hidden_size
    temporal = 4 * width**2 + 5 * width
    assert count(dense) - count(dropped) == dense.shape.num_layers * temporal
    assert count(prune_denoiser(copy.deepcopy(dense), masks_of(dense, 1.0, "layer", "local"))) == count(dense)
    assert 0.24 < temporal / (count(dense) / dense.shape.num_layers) < 0.26


# Summed over layers, every layer has the same score: only heads can share a mask.
AGGREGATED = [("timesteps", *unit) for unit in UNITS] + [("layers", *unit) for unit in UNITS if unit[0] == "head"]


@pytest.mark.parametrize(("aggregate", "granularity", "mode"), AGGREGATED)
def test_saved_and_loaded_with_one_call(aggregate, granularity, mode, tmp_path):
    dense = tiny()
    inputs = inputs_of(dense)
    pruned = prune_denoiser(copy.deepcopy(dense), masks_of(dense, 0.5, granularity, mode, aggregate))
    save_pruned(pruned, tmp_path)
    loaded = load_pruned(tmp_path)
    assert torch.equal(loaded(**inputs), pruned(**inputs))


def test_frame_pairs_are_refused():
    dense = tiny()
    with pytest.raises(InputError, match="granularity='layer'` or `'head'"):
        prune_denoiser(copy.deepcopy(dense), masks_of(dense, 0.5, "frame-pair"))
