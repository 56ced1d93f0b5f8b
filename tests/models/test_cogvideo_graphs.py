"""CogVideo's two graphs: ONNX Runtime generates what PyTorch does, caches stay in place, TensorRT-RTX builds them."""

import copy

import pytest
import torch
from cogvideo_subject import BEGIN, inputs_of, masks_of, tiny

from f3prune.calibration import prune_denoiser
from f3prune.core.errors import ArtifactError, InputError
from f3prune.engines import BuildConfig
from f3prune.engines.cogvideo import EngineCogVideo, build_autoregressive
from f3prune.exporter import export_autoregressive
from f3prune.models.cogvideo.generation import INTERPOLATION_TIMES, generate_tokens
from f3prune.models.cogvideo.sampling import GreedySampler

CASES = {
    "dense": (1, -1, 0.0, "layer", "local"),
    "layers-local": (1, -1, 0.5, "layer", "local"),
    "heads-local": (1, -1, 0.5, "head", "local"),
    "all-dropped": (1, -1, 1.0, "layer", "drop"),
    "stage2-heads-local": (2, 2, 0.5, "head", "local"),
}
TEXT, GUIDE = [32, 33, 34, 35], [36, 37]


def case(name):
    """Model, its masks, the times of the given and of all frames."""
    stage, window, alpha, granularity, mode = CASES[name]
    dense = tiny(stage, window, layers=2)
    masks = masks_of(dense, alpha, granularity, mode)
    model = prune_denoiser(copy.deepcopy(dense), masks)
    return model, masks, (INTERPOLATION_TIMES[:3], INTERPOLATION_TIMES) if stage == 2 else ((0,), (0, 1, 2))


QUICK = ("heads-local", "all-dropped")
MARKED = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow(reason="two more graphs each")) for name in CASES
]


@pytest.fixture(scope="module", params=MARKED)
def exported(request, tmp_path_factory):
    model, masks, times = case(request.param)
    directory = tmp_path_factory.mktemp(request.param)
    return model, masks, times, directory, export_autoregressive(model, directory / "onnx", times[0])


def test_the_engine_generates_what_pytorch_does(exported, tmp_path):
    model, masks, (given_times, times), directory, _ = exported
    build_autoregressive(directory / "onnx", tmp_path, model.shape, BuildConfig(cache=False), masks.digest)
    tokens = inputs_of(model)["tokens"][:, model.shape.text_len :] % 32
    given = tokens.unflatten(1, (model.shape.frame_num, -1))[:1, : len(given_times)]
    seen = {"torch": [], "engine": []}

    def recording(name):
        def sampler(logits, generator):
            seen[name].append(logits.clone())
            return GreedySampler(32)(logits)

        return sampler

    settings = {"guide": GUIDE, "guidance_scale": 3.0, "log_text": 1.4}
    expected = generate_tokens(model, TEXT, given, times, BEGIN, recording("torch"), **settings)
    with EngineCogVideo.open(tmp_path, model.shape, masks.digest) as engine:
        found = generate_tokens(engine, TEXT, given, times, BEGIN, recording("engine"), **settings)
        with pytest.raises(InputError, match="exported for"):
            generate_tokens(engine, TEXT, given[:, :0], times, BEGIN, GreedySampler(32))
    assert torch.equal(found, expected)
    torch.testing.assert_close(torch.stack(seen["engine"]), torch.stack(seen["torch"]), atol=2e-4, rtol=1e-4)
    with pytest.raises(ArtifactError, match="masks"):
        EngineCogVideo.open(tmp_path, model.shape, "0" * 64)


def test_the_graph_holds_no_cache_that_a_pruned_layer_does_not_need(exported):
    model, _, _, _, result = exported
    shapes = {spec.name: spec.shape for spec in result.decode.inputs}
    for index, layer in enumerate(model.blocks):
        temporal = shapes.get(f"layers.{index}.temporal_key")
        local = shapes.get(f"layers.{index}.local_key")
        assert shapes[f"layers.{index}.spatial_key"][2] == "frame_slots"
        if layer.temporal is None:
            assert temporal is None
            assert local is None
            continue
        assert (temporal[1:3] if temporal else None) == (
            (layer.temporal.dense_heads, "video_slots") if layer.temporal.dense_heads else None
        )
        assert (local[1:3] if local else None) == (
            (layer.temporal.local_heads, "frame_slots") if layer.temporal.local_heads else None
        )
    # One softmax for the spatial channel, one for each kind of temporal head that is left.
    softmaxes = sum(
        1 + (0 if layer.temporal is None else bool(layer.temporal.dense_heads) + bool(layer.temporal.local_heads))
        for layer in model.blocks
    )
    assert result.decode.facts.operators["Softmax"] == softmaxes
    caches = [name for name in shapes if name.startswith("layers.")]
    assert result.decode.facts.operators["ScatterElements"] == len(caches)


def test_tensorrt_rtx_builds_both_graphs(exported, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    model, masks, _, directory, _ = exported
    config = BuildConfig("tensorrt-rtx", compute_capabilities=("8.9",), cache=False)
    records = build_autoregressive(directory / "onnx", tmp_path, model.shape, config, masks.digest)
    assert set(records) == {"prefill", "decode"}
    assert all((tmp_path / name / "denoiser.engine").stat().st_size > 0 for name in records)


def test_a_step_writes_into_the_cache_that_was_bound(tmp_path):
    model, _, times = case("dense")
    export_autoregressive(model, tmp_path / "onnx", times[0])
    build_autoregressive(tmp_path / "onnx", tmp_path / "engine", model.shape, BuildConfig(cache=False))
    rows, text = 2, 4
    with EngineCogVideo.open(tmp_path / "engine", model.shape) as engine:
        tokens = torch.cat([torch.tensor([TEXT] * rows), torch.ones(rows, 16, dtype=torch.int64)], dim=1)
        _, caches = engine.prefill(tokens, tokens, torch.ones(rows, text, dtype=torch.int64))
        caches = [cache.with_room(text, 16) for cache in caches]
        before = caches[0].temporal_key.clone()
        step = engine.bind(caches)
        zeros = torch.zeros
        biases = {"spatial": zeros(rows, 1, 1, 20), "local": zeros(rows, 1, 1, 20), "local_shifted": zeros(1)}
        from f3prune.models.cogvideo.model import StepBiases

        both = zeros(rows, 1, 1, 36)
        values = StepBiases(temporal=both, temporal_shifted=both, **biases)
        step(torch.tensor([1, 2]), torch.tensor([528]), torch.tensor([4]), torch.tensor([20]), values)
    changed = (caches[0].temporal_key != before).any(dim=-1)
    assert changed[:, :, 20].all()
    assert changed.sum() == rows * model.shape.num_attention_heads
