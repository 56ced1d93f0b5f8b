"""Frame mass, by every way of measuring it, against the naive softmax, and against cases computed by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from f3prune.calibration import fused_mass
from f3prune.calibration.attention_hook import AttentionCall
from f3prune.calibration.frame_mass import attention_with_mass, frame_mass
from f3prune.families import Site, TokenGrid


def make_call(batch, heads, frames, per_frame, before, after, mask=None, seed=0, dim=4):
    generator = torch.Generator().manual_seed(seed)
    length = before + frames * per_frame + after
    query, key, value = (2 * torch.randn(batch, heads, length, dim, generator=generator) for _ in range(3))
    site = Site("attn", "spatiotemporal", heads, dim, (), (), ())
    return AttentionCall(site, query, key, value, mask, dim**-0.5, TokenGrid(frames, 1, per_frame), before, after)


def naive(call):
    scores = call.query @ call.key.transpose(-1, -2) * call.scale
    if call.mask is not None:
        scores = scores.masked_fill(~call.mask, -math.inf) if call.mask.dtype == torch.bool else scores + call.mask
    probabilities = scores.softmax(-1)[:, :, call.video]
    rows = probabilities.unflatten(2, (call.frames, call.tokens_per_frame)).mean((0, 3))
    video = rows[..., call.video].unflatten(-1, (call.frames, call.tokens_per_frame)).sum(-1)
    return torch.cat([video, 1 - video.sum(-1, keepdim=True)], dim=-1)


def draw_mask(kind, batch, heads, length, present, seed):
    """A mask of some kind under which no query is left without a key; ``present`` is a key all may attend to."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "bool":
        mask = torch.rand(batch, 1, 1, length, generator=generator) > 0.3
        mask[..., present] = True
        return mask
    if kind == "causal":
        return torch.zeros(length, length).masked_fill_(torch.ones(length, length).triu(1).bool(), -math.inf)
    if kind == "additive":
        return torch.randn(1, heads, 1, length, generator=generator)
    return torch.randn(batch, 1, length, length, generator=generator) if kind == "per-query" else None


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    frames=st.integers(1, 4),
    per_frame=st.integers(1, 5),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    by_frames=st.booleans(),
    piece_bytes=st.sampled_from([1, 3000, 2**20]),
    kind=st.sampled_from(["none", "bool", "additive", "per-query", "causal"]),
    text_queries=st.booleans(),
    seed=st.integers(0, 999),
)
def test_one_pass_gives_the_attention_and_its_mass(
    batch, heads, frames, per_frame, before, after, by_frames, piece_bytes, kind, text_queries, seed
):
    length = before + frames * per_frame + after
    mask = draw_mask(kind, batch, heads, length, before, seed)
    whole = make_call(batch, heads, frames, per_frame, before, after, mask, seed)
    call = whole
    if not text_queries:
        rows = mask if mask is None or mask.shape[-2] == 1 else mask[..., whole.video, :]
        call = dataclasses.replace(whole, query=whole.query[:, :, whole.video], mask=rows, text_queries=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_mass, "cheaper_by_frames", lambda *_: by_frames)
        patch.setattr(fused_mass, "PIECE_BYTES", piece_bytes)
        output, mass = attention_with_mass(call)
    torch.testing.assert_close(output, call.dense(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mass.sum(-1), torch.ones(heads, frames), atol=1e-5, rtol=0)
    torch.testing.assert_close(mass, naive(whole), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 40),
    heads=st.integers(1, 3),
    frames=st.integers(1, 6),
    room=st.sampled_from([1, 500, 2**20]),
    kind=st.sampled_from(["none", "bool", "per-query", "causal"]),
    seed=st.integers(0, 999),
)
def test_short_sequences_give_the_attention_and_its_mass(batch, heads, frames, room, kind, seed):
    call = make_call(batch, heads, frames, 1, 0, 0, draw_mask(kind, batch, heads, frames, 0, seed), seed)
    call = dataclasses.replace(call, site=dataclasses.replace(call.site, layout="temporal"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fused_mass.CACHE_BYTES, "cpu", room)
        output, mass = attention_with_mass(call)
    torch.testing.assert_close(output, call.dense(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mass, naive(call), atol=1e-5, rtol=0)


def test_sampling_leaves_the_attention_bit_for_bit():
    call = make_call(2, 2, 3, 6, 1, 0)
    output, mass = attention_with_mass(call, 2, torch.Generator().manual_seed(5))
    assert torch.equal(output, call.dense())
    assert torch.equal(mass, frame_mass(call, 2, torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("by_frames", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_sum_to_one_in_half_precision(monkeypatch, dtype, by_frames):
    monkeypatch.setattr(fused_mass, "cheaper_by_frames", lambda *_: by_frames)
    call = make_call(1, 2, 5, 40, 8, 0)
    low = dataclasses.replace(call, **{name: getattr(call, name).to(dtype) for name in ("query", "key", "value")})
    output, mass = attention_with_mass(low)
    assert output.dtype == dtype
    assert mass.dtype == torch.float32
    torch.testing.assert_close(output.float(), low.dense().float(), atol=0.03, rtol=0.02)
    torch.testing.assert_close(mass.sum(-1), torch.ones(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(mass, frame_mass(low), atol=2e-3, rtol=0)


@pytest.mark.parametrize("by_frames", [True, False])
def test_the_fused_kernel_takes_what_it_is_given(monkeypatch, by_frames):
    monkeypatch.setattr(fused_mass, "cheaper_by_frames", lambda *_: by_frames)
    call = make_call(1, 2, 5, 16, 3, 0)
    packed = call.query.transpose(1, 2).contiguous().transpose(1, 2)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        output, _ = attention_with_mass(dataclasses.replace(call, query=packed))
    torch.testing.assert_close(output, call.dense(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("frames", "per_frame", "text", "dim", "expected"),
    [(13, 256, 32, 64, True), (13, 64, 0, 64, False), (49, 64, 0, 64, True), (8, 64, 12, 32, False)],
)
def test_the_cheaper_way_is_the_one_that_measured_faster(frames, per_frame, text, dim, expected):
    assert fused_mass.cheaper_by_frames(text + frames * per_frame, dim, frames + bool(text)) == expected


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    frames=st.integers(1, 4),
    per_frame=st.integers(1, 5),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    block_bytes=st.sampled_from([1, 200, 5000, 2**20]),
    kind=st.sampled_from(["none", "bool", "additive", "per-query"]),
    seed=st.integers(0, 999),
)
def test_streaming_equals_naive_for_any_block(batch, heads, frames, per_frame, before, after, block_bytes, kind, seed):
    length = before + frames * per_frame + after
    mask = draw_mask(kind, batch, heads, length, before, seed)
    call = make_call(batch, heads, frames, per_frame, before, after, mask, seed)
    mass = frame_mass(call, block_bytes=block_bytes)
    assert mass.shape == (heads, frames, frames + 1)
    torch.testing.assert_close(mass.sum(-1), torch.ones(heads, frames), atol=1e-5, rtol=0)
    torch.testing.assert_close(mass, naive(call), atol=1e-5, rtol=0)


def test_uniform_attention_by_hand():
    """Equal scores: each of the 2 frames x 3 tokens and 2 text tokens gets 1/8."""
    call = make_call(1, 1, 2, 3, 2, 0)
    call.query.zero_()
    expected = torch.tensor([[[3 / 8, 3 / 8, 2 / 8]] * 2])
    torch.testing.assert_close(frame_mass(call), expected.expand(1, 2, 3))


def test_row_sampling_is_unbiased():
    call = make_call(2, 2, 3, 6, 1, 0, seed=3)
    exact = frame_mass(call)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([frame_mass(call, rows=2, generator=generator) for _ in range(600)])
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-6).all()
    assert draws.std(0).max() > 1e-3


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 2),
    frames=st.integers(1, 7),
    per_frame=st.integers(2, 5),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    kind=st.sampled_from(["none", "bool", "additive"]),
    text_queries=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_sample_is_exact_where_the_queries_of_a_frame_are_equal(
    batch, heads, frames, per_frame, before, after, kind, text_queries, seed
):
    mask = draw_mask(kind, batch, heads, before + frames * per_frame + after, before, seed)
    call = make_call(batch, heads, frames, per_frame, before, after, mask, seed)
    video = call.query[:, :, call.video].unflatten(2, (frames, per_frame))
    video.copy_(video[:, :, :, :1].clone())
    exact = naive(call)
    if not text_queries:
        call = dataclasses.replace(call, query=call.query[:, :, call.video], text_queries=False)
    _, mass = attention_with_mass(call, 1, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(mass, exact, atol=1e-5, rtol=0)


def test_all_rows_sampled_is_exact():
    call = make_call(1, 2, 2, 4, 0, 2)
    torch.testing.assert_close(frame_mass(call, rows=4), frame_mass(call))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accumulated_in_float32(dtype):
    call = make_call(1, 2, 3, 5, 2, 0)
    low = AttentionCall(**{**call.__dict__, "query": call.query.to(dtype), "key": call.key.to(dtype)})
    high = AttentionCall(**{**call.__dict__, "query": low.query.float(), "key": low.key.float()})
    torch.testing.assert_close(frame_mass(low), frame_mass(high), atol=1e-6, rtol=0)
