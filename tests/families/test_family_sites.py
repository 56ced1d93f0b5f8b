"""The declared sites are self-attentions over the declared frames, they matter, and none is missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from attention_trace import OUTSIDE, Call, record, silenced, with_latents
from torch import nn

from f3prune.core.calls import sample_of
from f3prune.families import Family, Site, TokenGrid, family_of
from f3prune.testing import TINY_SHAPES, VARIANTS, tiny_denoiser

BATCH = 2
TEXTS = ("encoder_hidden_states", "encoder_hidden_states_2", "image_embeds")
"""What makes text tokens of a sequence, where a family has it."""
TEXT_MASKS = {
    "hunyuan_video": ("encoder_attention_mask",),
    "framepack": ("encoder_attention_mask",),
    "hunyuan_video15": ("encoder_attention_mask", "encoder_attention_mask_2"),
}
"""Families that mask padding, and the arguments that say where it is."""
# Attends along the frame axis of the conditioning image and its position masks: documented as no site.
CONDITIONING = {"i2vgen_xl": {"image_latents_temporal_encoder.attn1"}}
# Two latent frames of 2 × 3 tokens; two frames of 4 × 6 latents in one patch of 2 × 2 tokens and a half, and sixteen in
# four patches: each padded to whole patches.
HELIOS_HISTORY = 2 * 6 + 1 * 1 * 2 + 4 * 1 * 1
JOINT = {
    "mochi": r"transformer_blocks\.\d+\.attn1",
    "hunyuan_video": r"transformer_blocks\.\d+\.attn",
    "hunyuan_video15": r"transformer_blocks\.\d+\.attn",
    "framepack": r"transformer_blocks\.\d+\.attn",
    "easyanimate": r"transformer_blocks\.\d+\.attn1",
}
"""Sites that project text by layers of its own."""


@dataclass(frozen=True)
class Subject:
    variant: str
    denoiser: nn.Module
    family: Family
    inputs: dict[str, Any]
    grid: TokenGrid
    sites: list[Site]

    @property
    def before(self) -> int:
        """Tokens in front of the video, where there are some on both sides."""
        return self.family.tokens_before(self.denoiser, self.inputs)

    def perturbed(self, frame: int) -> dict[str, Any]:
        """The inputs with other latents in one token frame."""

        def change(latents: torch.Tensor) -> torch.Tensor:
            view = self.family.frames_first(latents, self.grid)
            view[frame] += torch.randn(view[frame].shape, generator=torch.Generator().manual_seed(7))
            return latents

        return with_latents(self.inputs, self.family.latents, change)

    def difference(self, frame: int) -> torch.Tensor:
        """Greatest change of every frame of the output, relative to the output, when one frame's latents change."""
        with torch.no_grad():
            before = sample_of(self.denoiser(**self.inputs, return_dict=False))
            after = sample_of(self.denoiser(**self.perturbed(frame), return_dict=False))
        change = self.family.frames_first((after - before).abs(), self.grid)
        return change.flatten(1).amax(1) / before.abs().max()


@cache
def subject_of(variant: str) -> Subject:
    denoiser = tiny_denoiser(variant)
    family = family_of(denoiser)
    inputs = family.synthetic_inputs(denoiser, TINY_SHAPES[variant], BATCH, torch.Generator().manual_seed(1))
    return Subject(variant, denoiser, family, inputs, family.token_grid(denoiser, inputs), family.find_sites(denoiser))


@pytest.fixture(params=VARIANTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return subject_of(request.param)


def frame_columns(subject: Subject, tokens: int) -> dict[int, range]:
    """The key columns of every frame in a site's sequence of ``tokens``."""
    grid = subject.grid
    if subject.family.layout == "temporal":
        return {frame: range(frame, frame + 1) for frame in range(grid.frames)}
    start = tokens - grid.video_tokens if subject.family.text == "before" else subject.before
    t = grid.tokens_per_frame
    return {frame: range(start + frame * t, start + (frame + 1) * t) for frame in range(grid.frames)}


def test_sites_are_self_attentions_over_the_declared_tokens(subject: Subject) -> None:
    _, calls = record(subject.denoiser, subject.inputs)
    for site in subject.sites:
        # Mochi cuts the padding out of each sample, so it attends sample by sample.
        expected = BATCH if subject.family.name == "mochi" else 1
        assert len(calls[site.name]) == expected
        for index, call in enumerate(calls[site.name]):
            assert call.query.shape == call.key.shape
            assert call.query.shape[1] == site.heads
            assert call.query.shape[3] == site.head_dim
            text = call.query.shape[2] - (
                subject.grid.frames if subject.family.layout == "temporal" else subject.grid.video_tokens
            )
            if subject.family.text == "none":
                assert text == 0
            elif subject.grid.references:
                assert text == subject.grid.references * subject.grid.tokens_per_frame
            elif subject.family.name == "helios":
                assert text == HELIOS_HISTORY
            elif subject.family.name == "mochi":
                assert text == int(subject.inputs["encoder_attention_mask"][index].sum())
            else:
                texts = sum(subject.inputs[name].shape[1] for name in TEXTS if name in subject.inputs)
                assert text == subject.before + texts


def test_only_hunyuan_video_passes_a_mask(subject: Subject) -> None:
    _, calls = record(subject.denoiser, subject.inputs)
    masks = [call.mask for site in subject.sites for call in calls[site.name] if call.mask is not None]
    if subject.family.name not in TEXT_MASKS:
        assert not masks
        return
    lengths = subject.before + sum(subject.inputs[name].sum(1) for name in TEXT_MASKS[subject.family.name])
    if "image_embeds" in subject.inputs:
        lengths = lengths + subject.inputs["image_embeds"].shape[1]
    for mask in masks:
        assert mask.dtype == torch.bool
        assert torch.equal(mask[:, :, 0].sum(-1).flatten().float(), subject.grid.video_tokens + lengths)


def test_padding_asks_nothing_where_declared(subject: Subject) -> None:
    """Rows of tokens that count are alike, and no other row lets a query attend to anything."""
    if not subject.family.padding_asks_nothing:
        pytest.skip("no mask, or one of keys alone")
    _, calls = record(subject.denoiser, subject.inputs)
    for site in subject.sites:
        for call in calls[site.name]:
            assert call.mask is not None
            row = call.mask[:, :, subject.grid.video_tokens - 1 : subject.grid.video_tokens]
            assert torch.equal(call.mask, row & row.transpose(2, 3))
            assert not row.all()


@pytest.mark.parametrize("frame", [0, -1])
def test_sites_see_the_frames_in_order(subject: Subject, frame: int) -> None:
    """With every site silenced, another frame in the latents moves that frame's keys and queries, at every site."""
    with silenced(subject.denoiser, subject.sites):
        _, before = record(subject.denoiser, subject.inputs)
        _, after = record(subject.denoiser, subject.perturbed(frame))

    def changes(first: Call, second: Call) -> torch.Tensor:
        return torch.maximum((first.key - second.key).abs(), (first.query - second.query).abs()).amax((0, 1, 3))

    for site in subject.sites:
        for first, second in zip(before[site.name], after[site.name], strict=True):
            change = changes(first, second)
            columns = frame_columns(subject, len(change))
            moved = set(columns[frame % subject.grid.frames])
            if subject.family.only_path_between_frames:
                assert set(change.nonzero().flatten().tolist()) == moved
            else:
                # Group norms and temporal convolutions carry some of the change to other frames.
                assert int(change.argmax()) in moved


def test_no_attention_over_frames_is_missed(subject: Subject) -> None:
    _, calls = record(subject.denoiser, subject.inputs)
    grid = subject.grid
    references = grid.references * grid.tokens_per_frame
    tokens = {grid.frames if subject.family.layout == "temporal" else references + grid.video_tokens}
    over_frames = {
        name
        for name, made in calls.items()
        if any(c.query.shape[2] == c.key.shape[2] and c.query.shape[2] in tokens for c in made)
        or name in {site.name for site in subject.sites}
    }
    assert over_frames - {s.name for s in subject.sites} == CONDITIONING.get(subject.family.name, set())
    assert OUTSIDE not in calls


def test_frames_are_isolated_exactly_where_the_sites_are_the_only_path(subject: Subject) -> None:
    with silenced(subject.denoiser, subject.sites):
        for frame in range(subject.grid.frames):
            change = subject.difference(frame)
            others = torch.cat([change[:frame], change[frame + 1 :]])
            assert change[frame] > 1e-3
            assert bool((others == 0).all()) == subject.family.only_path_between_frames


def test_every_frame_reaches_every_other_in_the_dense_model(subject: Subject) -> None:
    for frame in range(subject.grid.frames):
        assert subject.difference(frame).min() > 1e-4


def test_every_site_matters(subject: Subject) -> None:
    with torch.no_grad():
        dense = sample_of(subject.denoiser(**subject.inputs, return_dict=False))
        for site in subject.sites:
            with silenced(subject.denoiser, [site]):
                without = sample_of(subject.denoiser(**subject.inputs, return_dict=False))
            assert (without - dense).norm() > 1e-3 * dense.norm(), site.name


def test_sites_are_described_completely(subject: Subject) -> None:
    assert len(subject.sites) >= 2
    for site in subject.sites:
        assert site.layout == subject.family.layout
        assert site.heads >= 2
        inner = site.heads * site.head_dim
        for name in (*site.query_key, *site.value):
            assert subject.denoiser.get_submodule(name).weight.shape[0] == inner
        for name, column in site.outputs:
            assert subject.denoiser.get_submodule(name).weight.shape[1] >= column + inner
        joint = re.fullmatch(JOINT.get(subject.family.name, "-"), site.name) is not None
        assert len(site.query_key) == (4 if joint else 2)
        assert len(site.value) == (2 if joint else 1)
        assert bool(site.head_norms) == subject.family.norm_across_heads


def test_sites_return_text_where_declared(subject: Subject) -> None:
    returned: list[Any] = []
    site = subject.denoiser.get_submodule(subject.sites[0].name)
    handle = site.register_forward_hook(lambda _module, _args, output: returned.append(output))
    with torch.no_grad():
        subject.denoiser(**subject.inputs, return_dict=False)
    handle.remove()
    assert isinstance(returned[0], tuple) == subject.family.returns_text


def test_declared_head_exchangeability_is_true(subject: Subject) -> None:
    """Reordering q and k heads in the weights leaves a site's attention unchanged exactly where declared."""
    subject = Subject(
        subject.variant,
        tiny_denoiser(subject.variant),
        subject.family,
        subject.inputs,
        subject.grid,
        subject.sites,
    )
    site = subject.sites[0]
    _, before = record(subject.denoiser, subject.inputs)
    with torch.no_grad():
        for name in (*site.query_key, *site.head_norms):
            module = subject.denoiser.get_submodule(name)
            for parameter in module.parameters():
                heads = parameter.unflatten(0, (site.heads, site.head_dim)).flip(0)
                parameter.copy_(heads.flatten(0, 1).clone())
    _, after = record(subject.denoiser, subject.inputs)
    same = all(
        torch.allclose(a.key, b.key.flip(1), atol=1e-5)
        for a, b in zip(before[site.name], after[site.name], strict=True)
    )
    assert same == subject.family.qk_heads_interchangeable
