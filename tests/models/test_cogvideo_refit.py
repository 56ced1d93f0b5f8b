"""Refit of a CogVideo whose temporal channels were dropped: frames read the spatial channel by a layer of their own."""

import copy

import pytest
import torch
from cogvideo_subject import BEGIN, inputs_of, masks_of, tiny

from f3prune.calibration import Refit, load_pruned, masked_reference, prune_denoiser, refit, save_pruned
from f3prune.calibration.refitting import NothingToRefit
from f3prune.core.errors import InputError
from f3prune.models.cogvideo.decoding import Decoding, replay

SEEDS = (1, 2, 3)


def denoise(model):
    """Passes over finished sequences; cached steps beside them are not for the fit."""

    def run():
        for seed in SEEDS:
            inputs = inputs_of(model, seed=seed)
            text = inputs["tokens"][:, : model.shape.text_len]
            begun = torch.full((2, 1, model.shape.frame_len), BEGIN)
            decoding = Decoding(model, text, inputs["text_mask"], begun, range(model.shape.frame_num), BEGIN)
            decoding.begin_frame()
            decoding.step(torch.full((2,), BEGIN))
            model(**inputs)

    return run


def refitted(dense, alpha=0.5):
    return refit(dense, masks_of(dense, alpha, "layer", "drop"), denoise(dense))


@pytest.mark.parametrize("kind", [(1, -1), (2, 2)])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_baked_equals_masked_dense_and_is_saved(kind, alpha, tmp_path):
    dense = tiny(*kind)
    inputs = inputs_of(dense)
    masks, fitted = refitted(dense, alpha)
    baked = prune_denoiser(copy.deepcopy(dense), masks, refit=fitted)
    (stage,) = masks.stages
    with masked_reference(dense, masks, layers=lambda site: fitted.layers(dense, site, 0)):
        expected = dense(**inputs)
    torch.testing.assert_close(baked(**inputs), expected, atol=1e-4, rtol=1e-5)
    assert all(layer.spatial.frame_out is None for layer in dense.layers)
    touched = {name for name, mask in stage.sites.items() if not mask.untouched}
    assert {f"layers.{k}.temporal" for k, layer in enumerate(baked.layers) if layer.spatial.frame_out} == touched
    fitted.save(tmp_path / "refit.safetensors")
    assert Refit.load(tmp_path / "refit.safetensors").digest == fitted.digest == masks.refit
    save_pruned(baked, tmp_path / "pruned")
    assert torch.equal(load_pruned(tmp_path / "pruned")(**inputs), baked(**inputs))


def test_a_refitted_layer_is_nearer_to_the_mixture():
    """On the sequences it was fitted to, the layer's attention misses less of what both channels gave; text none."""
    dense = tiny(layers=1)
    masks, fitted = refitted(dense, 1.0)
    plain = masks_of(dense, 1.0, "layer", "drop")
    models = {
        "dense": dense,
        "dropped": prune_denoiser(copy.deepcopy(dense), plain),
        "refitted": prune_denoiser(copy.deepcopy(dense), masks, refit=fitted),
    }
    mixed = {}
    for name, model in models.items():
        seen = []
        model.layers[0].attention_norm_out.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0]))
        for seed in SEEDS:
            model(**inputs_of(model, seed=seed))
        mixed[name] = torch.cat(seen)
    text = dense.shape.text_len
    lost = {name: float((mixed[name] - mixed["dense"])[:, text:].square().mean()) for name in ("dropped", "refitted")}
    assert 0 < lost["refitted"] < 0.8 * lost["dropped"]
    torch.testing.assert_close(mixed["refitted"][:, :text], mixed["dense"][:, :text])


def test_cached_steps_equal_the_whole_sequence():
    dense = tiny()
    masks, fitted = refitted(dense)
    model = prune_denoiser(copy.deepcopy(dense), masks, refit=fitted)
    inputs = inputs_of(dense)
    inputs["text_mask"][:] = 1
    text = dense.shape.text_len
    whole = model(**inputs)[:, text:]
    torch.testing.assert_close(replay(model, inputs["tokens"], inputs["text_mask"], 0), whole, atol=1e-4, rtol=1e-5)


def test_a_frame_drawn_without_the_temporal_channel_keeps_its_projection():
    dense = tiny()
    masks, fitted = refitted(dense)
    refitted_model = prune_denoiser(copy.deepcopy(dense), masks, refit=fitted)
    inputs = inputs_of(dense)
    one = dense.shape.text_len + dense.shape.frame_len
    given = (inputs["tokens"][:, :one], inputs["position_ids"][:, :one], inputs["text_mask"])
    alone = [model.prefill(*given, spatial_only=True)[0] for model in (dense, refitted_model)]
    torch.testing.assert_close(*alone)
    with_others = [model.prefill(*given)[0] for model in (dense, refitted_model)]
    assert not torch.allclose(*with_others)


@pytest.mark.parametrize(("granularity", "mode"), [("layer", "local"), ("head", "drop"), ("head", "local")])
def test_what_cannot_be_refitted_is_refused_with_a_way_that_works(granularity, mode):
    dense = tiny()
    with pytest.raises(NothingToRefit, match="prune with `mode='drop'` and `granularity='layer'`"):
        refit(dense, masks_of(dense, 0.25, granularity, mode), denoise(dense))
    assert refitted(dense, 0.25)[0].refit


def test_a_refit_that_sees_nothing_is_refused():
    dense = tiny()
    with pytest.raises(InputError, match="saw no pass"):
        refit(dense, masks_of(dense, 0.5, "layer", "drop"), lambda: None)
