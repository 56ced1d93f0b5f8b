"""Facts of CogVideo that need no recorded outputs: sizes, masks, positions, samplers, errors."""

import dataclasses

import pytest
import torch
from cogvideo_subject import BEGIN, inputs_of, published_state, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from f3prune.core.errors import InputError
from f3prune.models import CogVideo, CogVideoConfig
from f3prune.models.cogvideo import PUBLISHED, masks
from f3prune.models.cogvideo.decoding import Decoding, text_positions
from f3prune.models.cogvideo.generation import generate_tokens, interpolate_tokens
from f3prune.models.cogvideo.published import names
from f3prune.models.cogvideo.sampling import ClusterSampler, GreedySampler, TopKSampler


def test_published_size():
    with torch.device("meta"):
        model = CogVideo(PUBLISHED["cogvideo-stage1"])
    temporal = sum(
        parameter.numel() for name, parameter in model.named_parameters() if ".temporal." in name or "gate" in name
    )
    extra = model.frame_position_embeddings.weight.numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert round((temporal + extra) / 1e9, 3) == 1.819
    assert round((total - temporal - extra) / 1e9, 3) == 5.902
    assert PUBLISHED["cogvideo-stage2"].window_size == 10


def test_stage_1_looks_back_only():
    config = tiny().shape
    allowed = masks.temporal_mask(config, range(3), shifted=False)
    assert torch.equal(allowed, torch.ones(48, 48).tril().bool())
    assert torch.equal(masks.frame_mask(config, range(3)), torch.ones(3, 16, 16).tril().bool())


def test_stage_2_sees_given_frames_whole_and_its_own_past():
    config = tiny(2, 2).shape
    whole = dataclasses.replace(config, window_size=-1)
    blocks = masks.temporal_mask(whole, range(5), shifted=False).unflatten(0, (5, 16)).unflatten(2, (5, 16))
    full, causal, none = torch.ones(16, 16).bool(), torch.ones(16, 16).tril().bool(), torch.zeros(16, 16).bool()
    expected = {(1, 1): causal, (3, 3): causal, (3, 1): full, (1, 3): none}
    for query in range(5):
        for key in range(5):
            wanted = full if key % 2 == 0 else none if query % 2 == 0 else expected[query, key]
            assert torch.equal(blocks[query, :, key], wanted), (query, key)


@pytest.mark.parametrize("shifted", [False, True])
def test_windows_tile_a_frame(shifted):
    config = tiny(2, 2).shape
    within = masks.temporal_mask(config, [0], shifted)
    sizes = within.sum(1)
    if not shifted:
        assert (sizes == 4).all()
        return
    # Of the shifted windows one is whole; those that wrap around the edge fall apart into halves and corners.
    assert sorted(sizes.tolist()) == [1] * 4 + [2] * 8 + [4] * 4
    joined = masks.temporal_mask(config, [0], shifted, regions_between_given=False)
    assert (joined.sum(1) == 4).all()


def test_text_is_padded_on_the_left():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert text_positions(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    model = tiny()
    inputs = inputs_of(model)
    inputs["position_ids"] = inputs["position_ids"].clone()
    inputs["position_ids"][:, :5] = text_positions(inputs["text_mask"])
    changed = inputs["tokens"].clone()
    changed[0, :2] = (changed[0, :2] + 1) % BEGIN
    before, after = (
        model(tokens, inputs["position_ids"], inputs["text_mask"]) for tokens in (inputs["tokens"], changed)
    )
    assert torch.equal(before[:, 5:], after[:, 5:])
    assert not torch.equal(before[0, :2], after[0, :2])


def test_a_guide_in_the_batch_is_a_sequence_of_its_own():
    model = tiny()
    text, guide = [32, 33, 34, 35], [36]
    empty = torch.zeros(1, 0, 16, dtype=torch.int64)

    def logits_of(rows, mask):
        decoding = Decoding(model, rows, mask, empty.expand(len(rows), -1, -1), range(3), BEGIN)
        decoding.begin_frame()
        return decoding.step(torch.full((len(rows),), BEGIN))

    both = logits_of(torch.tensor([text, [0, 0, 0, *guide]]), torch.tensor([[1, 1, 1, 1], [0, 0, 0, 1]]))
    alone = logits_of(torch.tensor([guide]), torch.ones(1, 1, dtype=torch.int64))
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)


def test_interpolation_puts_a_frame_between_neighbours():
    model = tiny(2, 2)
    frames = torch.randint(32, (1, 5, 16), generator=torch.Generator().manual_seed(0))
    made = interpolate_tokens(model, [33, 34], frames, BEGIN, GreedySampler(32))
    assert made.shape == (1, 9, 16)
    assert torch.equal(made[:, ::2], frames)
    with pytest.raises(InputError, match="odd number of at least 3"):
        interpolate_tokens(model, [33], frames[:, :4], BEGIN, GreedySampler(32))
    with pytest.raises(InputError, match="stage-1"):
        interpolate_tokens(tiny(), [33], frames, BEGIN, GreedySampler(32))


def test_the_cluster_sampler_by_hand():
    # Two clusters: {0, 1} with odds 1 : 3 and {2} alone; temperature 1 keeps the odds.
    sampler = ClusterSampler(torch.tensor([0, 0, 1]), top_k=2, temperature=1.0, temperature2=0.5)
    logits = torch.tensor([[1.0, 3.0, 4.0]]).log()
    weights, labels = sampler.clusters(logits)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5]]))
    assert sorted(labels[0].tolist()) == [0, 1]
    torch.testing.assert_close(sampler.tokens(logits, torch.tensor([0])), torch.tensor([[0.1, 0.9, 0.0]]))


@given(st.integers(1, 6), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_top_k_draws_one_of_the_likeliest(top_k, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 9, generator=generator)
    drawn = TopKSampler(6, top_k)(logits, generator)
    likeliest = logits[:, :6].topk(top_k).indices
    assert all(token in row for token, row in zip(drawn.tolist(), likeliest.tolist(), strict=True))


def test_a_checkpoint_that_does_not_fit_names_all_that_is_wrong():
    model = tiny(layers=1)
    state = published_state(model.state_dict(), model.shape)
    assert state.keys() == {name for name, _, _ in names(model.shape)}
    again = CogVideo(model.shape).load_published(state).eval()
    inputs = inputs_of(model)
    assert torch.equal(again(**inputs), model(**inputs))
    del state["transformer.final_layernorm.bias"]
    state["surplus"] = torch.zeros(1)
    state["mixins.attention_plus.dense.0.weight"] = torch.zeros(2, 2)
    with pytest.raises(InputError) as caught:
        again.load_published(state)
    for word in ("missing: transformer.final_layernorm.bias", "left over: surplus", "dense.0.weight [2, 2] instead of"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hidden_size", 30, "does not divide into 4 heads"),
        ("frame_len", 15, "square number"),
        ("stage", 3, "1 (frame after frame) or 2"),
        ("window_size", 3, "even divisor"),
        ("max_sequence_length", 500, "at least 528"),
        ("additional_seqlen", 16, "at least 32"),
        ("num_layers", 0, "at least 1"),
    ],
)
def test_a_configuration_that_does_not_fit(field, value, said):
    with pytest.raises(InputError) as caught:
        CogVideoConfig(**{**dataclasses.asdict(tiny().shape), field: value})
    assert said in str(caught.value)


def test_misuse_is_told():
    model = tiny()
    given_frames = torch.zeros(1, 1, 16, dtype=torch.int64)
    inputs = inputs_of(model)
    with pytest.raises(InputError, match="multiple of frame_len 16"):
        model(inputs["tokens"][:, :-1], inputs["position_ids"][:, :-1], inputs["text_mask"])
    with pytest.raises(InputError, match="no tokens: give a prompt"):
        generate_tokens(model, [], given_frames, range(3), BEGIN, GreedySampler(32))
    with pytest.raises(InputError, match="at most 1"):
        generate_tokens(model, [33], given_frames.expand(1, 2, 16), range(1), BEGIN, GreedySampler(32))
    decoding = Decoding(model, torch.tensor([[33]]), torch.ones(1, 1), given_frames, range(2), BEGIN)
    with pytest.raises(InputError, match="begin_frame first"):
        decoding.step(torch.tensor([0]))
    decoding.begin_frame()
    with pytest.raises(InputError, match="is complete"):
        decoding.begin_frame()
