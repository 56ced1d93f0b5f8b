"""CogVideo against the original code: whole sequences, cached inference, generation and the cluster sampler."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from f3prune.models import CogVideo, CogVideoConfig
from f3prune.models.cogvideo.decoding import Decoding
from f3prune.models.cogvideo.generation import INTERPOLATION_TIMES, generate_tokens
from f3prune.models.cogvideo.sampling import ClusterSampler, GreedySampler

ORACLE = Path(__file__).resolve().parents[2].parent / "shared" / "oracle" / "cogvideo"
pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason="the original's recorded outputs are not here")
ATOL = 1e-4
TRAINING = (
    "stage1_full_tiny",
    "stage1_full_real_layout",
    "stage1_window_sequential_tiny",
    "stage2_window_tiny",
    "stage2_window_real_layout",
)
CACHED = (
    "stage1_cache_tiny",
    "stage1_cache_real_layout",
    "stage1_pipeline_tiny",
    "stage2_cache_tiny",
    "stage2_cache_real_layout",
)


def load(name):
    """Facts, arrays as tensors, and the model of one recorded case."""
    facts = json.loads((ORACLE / f"{name}.json").read_text())
    with np.load(ORACLE / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    config = CogVideoConfig(
        num_layers=facts["num_layers"],
        hidden_size=facts["hidden_size"],
        num_attention_heads=facts["num_attention_heads"],
        vocab_size=facts["vocab_size"],
        text_len=facts["text_len"],
        frame_len=facts["frame_len"],
        frame_num=facts.get("frame_num") or facts["total_frames"],
        stage=facts["stage"],
        window_size=facts["window_size"],
        max_sequence_length=facts["max_sequence_length"],
        additional_seqlen=facts["additional_seqlen"],
    )
    parameters = {key.removeprefix("param/"): value for key, value in arrays.items() if key.startswith("param/")}
    return facts, arrays, CogVideo(config).load_published(parameters).eval().requires_grad_(False)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("name", TRAINING)
def test_whole_sequences(name):
    facts, arrays, model = load(name)
    found = {}
    for index, layer in enumerate(model.layers):
        layer.attention_norm_in.register_forward_pre_hook(lambda m, a, i=index: found.__setitem__(i, a[0]))
        layer.attention_norm_out.register_forward_pre_hook(lambda m, a, i=index: found.__setitem__(f"a{i}", a[0]))
        layer.mlp_norm_out.register_forward_pre_hook(lambda m, a, i=index: found.__setitem__(f"m{i}", a[0]))
    model.final_norm.register_forward_pre_hook(lambda m, a: found.__setitem__(facts["num_layers"], a[0]))
    logits = model(arrays["in/tokens"], arrays["in/position_ids"], arrays["in/attention_mask_totxt"])
    close(logits, arrays["out/logits"])
    close(found[0], arrays["out/embeddings"])
    for index in range(facts["num_layers"]):
        close(found[index + 1], arrays[f"out/hidden_after_layer{index}"])
        if facts["detail"]:
            close(found[f"a{index}"], arrays[f"out/layer{index}/attention_out"])
            close(found[f"m{index}"], arrays[f"out/layer{index}/mlp_out"])
    image = logits[..., : facts["num_image_tokens"]].flatten(0, 1)
    mask = arrays["in/loss_mask"].flatten().bool()
    loss = torch.nn.functional.cross_entropy(image[mask], arrays["in/labels"].flatten()[mask])
    close(loss, arrays["out/loss"])


def hidden_after_layers(model):
    """Lists that fill with the residual stream ``b s c`` behind every layer, one entry per call."""
    found = [[] for _ in model.blocks]
    after = [*(layer.attention_norm_in for layer in model.blocks[1:]), model.final_norm]
    for seen, norm in zip(found, after, strict=True):
        norm.register_forward_pre_hook(lambda m, arguments, seen=seen: seen.append(arguments[0].clone()))
    return found


def variants():
    if not ORACLE.is_dir():
        return []
    return [
        (name, variant["name"])
        for name in CACHED
        for variant in json.loads((ORACLE / f"{name}.json").read_text())["variants"]
    ]


@pytest.mark.parametrize(("name", "variant"), variants())
def test_cached_inference(name, variant):
    facts, arrays, model = load(name)
    asked = next(item for item in facts["variants"] if item["name"] == variant)
    total = asked.get("total_frames", facts["total_frames"])
    times = INTERPOLATION_TIMES[:total] if facts["stage"] == 2 else range(total)
    given, spatial_only = asked["given_frames"], asked.get("no_swin", False)
    frames = arrays["in/frames"]
    batch = frames.shape[0]

    def decoding(text):
        rows = text.expand(batch, -1)
        weight = asked["log_text"]
        mask = torch.ones_like(rows)
        return Decoding(model, rows, mask, frames[:, :given], times, facts["boi"], weight, spatial_only)

    hidden = hidden_after_layers(model)
    main = decoding(arrays["in/text"])
    close(main.prefill_logits, arrays[f"out/{variant}/prefill_logits"])
    for index, seen in enumerate(hidden):
        expected = arrays.get(f"out/{variant}/prefill_hidden_after_layer{index}")
        if expected is not None:
            close(seen[0], expected)
        seen.clear()
    if asked["teacher"]:
        found = []
        for index in range(given, total):
            main.begin_frame()
            token = torch.full((batch,), facts["boi"])
            for slot in range(facts["frame_len"]):
                found.append(main.step(token))
                token = frames[:, index, slot]
        close(torch.stack(found, dim=1), arrays[f"out/{variant}/ar_logits"])
        for index, seen in enumerate(hidden):
            expected = arrays.get(f"out/{variant}/ar_hidden_after_layer{index}")
            if expected is not None:
                close(torch.cat(seen, dim=1), expected)
        return
    seen = []
    greedy = GreedySampler(facts["num_image_tokens"])

    def sampler(logits, generator):
        seen.append(logits)
        return greedy(logits)

    tokens = generate_tokens(
        model,
        arrays["in/text"][0].tolist(),
        frames[:, :given],
        times,
        facts["boi"],
        sampler,
        guide=arrays["in/guider_text"][0].tolist() if asked.get("guidance") else None,
        guidance_scale=asked.get("alpha", 1.0),
        log_text=asked["log_text"],
    )
    expected = arrays[f"out/{variant}/{'guided_logits' if asked.get('guidance') else 'ar_logits'}"]
    close(torch.stack(seen, dim=1), expected)
    for index, steps in enumerate(hidden):
        expected = arrays.get(f"out/{variant}/ar_hidden_after_layer{index}")
        if expected is not None:
            # The prefill comes first; the guide's rows come last.
            close(torch.cat(steps[1:], dim=1)[:batch], expected)
    # The original returns text, one begin-of-image token, then all frames.
    assert torch.equal(tokens.flatten(1), arrays[f"out/{variant}/tokens"][:, facts["text_len"] + 1 :])


def test_cluster_sampler():
    facts = json.loads((ORACLE / "sampling.json").read_text())
    with np.load(ORACLE / "sampling.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    sampler = ClusterSampler(
        arrays["in/cluster_labels"][: facts["num_valid"]], facts["top_k"], facts["temperature"], facts["temperature2"]
    )
    weights, labels = sampler.clusters(arrays["in/logits"])
    close(weights, arrays["out/cluster_weights"])
    cluster = labels.gather(1, arrays["in/cluster_choice"][:, None])[:, 0]
    probabilities = sampler.tokens(arrays["in/logits"], cluster)
    close(probabilities, arrays["out/token_probs"][:, : facts["num_valid"]])
    assert torch.equal(probabilities.argmax(dim=-1), arrays["out/argmax_token"])
