"""Streaming frame mass against the naive softmax, and against cases computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.frame_mass import frame_mass
from f3prune.families import Site
from f3prune.seam import AttentionCall


def make_call(batch, heads, frames, per_frame, before, after, mask=None, seed=0, dim=4):
    generator = torch.Generator().manual_seed(seed)
    length = before + frames * per_frame + after
    query, key, value = (2 * torch.randn(batch, heads, length, dim, generator=generator) for _ in range(3))
    site = Site("attn", "spatiotemporal", heads, dim, (), (), ())
    return AttentionCall(site, query, key, value, mask, dim**-0.5, frames, per_frame, before, after)


def naive(call):
    scores = call.query @ call.key.transpose(-1, -2) * call.scale
    if call.mask is not None:
        scores = scores.masked_fill(~call.mask, -math.inf) if call.mask.dtype == torch.bool else scores + call.mask
    probabilities = scores.softmax(-1)[:, :, call.video]
    rows = probabilities.unflatten(2, (call.frames, call.tokens_per_frame)).mean((0, 3))
    video = rows[..., call.video].unflatten(-1, (call.frames, call.tokens_per_frame)).sum(-1)
    return torch.cat([video, 1 - video.sum(-1, keepdim=True)], dim=-1)


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
    generator = torch.Generator().manual_seed(seed)
    mask = None
    if kind == "bool":
        mask = torch.rand(batch, 1, 1, length, generator=generator) > 0.3
        mask[..., before] = True
    elif kind == "additive":
        mask = torch.randn(1, heads, 1, length, generator=generator)
    elif kind == "per-query":
        mask = torch.randn(batch, 1, length, length, generator=generator)
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


def test_all_rows_sampled_is_exact():
    call = make_call(1, 2, 2, 4, 0, 2)
    torch.testing.assert_close(frame_mass(call, rows=4), frame_mass(call))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accumulated_in_float32(dtype):
    call = make_call(1, 2, 3, 5, 2, 0)
    low = AttentionCall(**{**call.__dict__, "query": call.query.to(dtype), "key": call.key.to(dtype)})
    high = AttentionCall(**{**call.__dict__, "query": low.query.float(), "key": low.key.float()})
    torch.testing.assert_close(frame_mass(low), frame_mass(high), atol=1e-6, rtol=0)
