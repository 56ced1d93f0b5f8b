"""What takes a pruned unit's place: by hand, by count, by registration, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from f3prune.calibration import Masks, PruneConfig, load_pruned, prune_denoiser, save_pruned, select_masks
from f3prune.calibration.attention_hook import AttentionCall, AttentionHook
from f3prune.calibration.bake.modules import StaticAttention
from f3prune.calibration.replacements import Replacement, mode_names, name_of, register, replacement_of
from f3prune.calibration.replacements._registry import _REGISTRY
from f3prune.calibration.replacements.pooled import Pooled
from f3prune.calibration.replacements.static import FrameMaps, Static
from f3prune.calibration.replacements.window import Window
from f3prune.core.errors import InputError
from f3prune.families import Site, TokenGrid, registry
from f3prune.testing import VARIANTS, family_name
from tests.subjects import relative, run, subject_of

JOINT = [v for v in VARIANTS if registry()[family_name(v)].layout == "spatiotemporal"]


def call_of(grid: TokenGrid, text: int = 0, heads: int = 2, dim: int = 4, seed: int = 0, **more) -> AttentionCall:
    """A joint call of random tokens, text behind."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 2, heads, grid.video_tokens + text, dim, generator=generator)
    values = {"query": query, "key": key, "value": value, "mask": None, "scale": dim**-0.5, "grid": grid}
    site = Site("s", "spatiotemporal", heads, dim, (), (), ())
    return AttentionCall(**{"site": site, **values, "text_before": 0, "text_after": text, **more})


def test_all_modes_are_found_by_their_files():
    assert set(mode_names()) >= {"drop", "local", "pooled", "static", "window"}
    for mode in ("drop", "local", "pooled", "static", "window"):
        assert name_of(replacement_of(mode)) == mode


def test_static_by_hand():
    """Two frames of one channel: ``y_i = b_o + w_o Σ_j P[i,j] (w_v x_j + b_v)``."""
    value, output = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        for layer, weight, bias in ((value, 2.0, 1.0), (output, 10.0, 0.5)):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
        module = StaticAttention(value, torch.tensor([[[0.25, 0.75], [1.0, 0.0]]]), output, "s")
        # Values are 3 and 7; their mixtures 6 and 3.
        assert module(torch.tensor([[[1.0], [3.0]]])).flatten().tolist() == [60.5, 30.5]


def test_static_maps_are_the_mean_of_the_calibrated_ones():
    subject = subject_of("latte")
    masks = select_masks(subject.calibration, PruneConfig(1.0, mode="static", score="aas", stages=2))
    first, *_ = masks.stages[0].sites
    for stage in masks.stages:
        found = stage.sites[first].replacement
        assert isinstance(found, Static)
        mean = subject.calibration.mass[first][slice(*stage.steps), :, :, :-1].mean(0)
        torch.testing.assert_close(found.maps.tensor(), mean, atol=0, rtol=0)
    assert Masks.from_json(masks.to_json()) == masks


def test_a_static_model_leaves_only_values_maps_and_output():
    subject = subject_of("animatediff")
    pruned = subject.pruned(1.0, "layer", "static")
    for name in subject.calibration.sites:
        module = pruned.get_submodule(name)
        assert {key.partition(".")[0] for key in module.state_dict()} == {"value", "maps", "output"}


def test_static_refuses_another_number_of_frames():
    subject = subject_of("animatediff")
    pruned = subject.pruned(1.0, "layer", "static")
    shape = dataclasses.replace(_shape("animatediff"), frames=4)
    inputs = subject.family.synthetic_inputs(pruned, shape, 1, torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="made static for 3 frames, this call has 4"):
        run(pruned, inputs)
    same = subject.family.synthetic_inputs(pruned, _shape("animatediff"), 1, torch.Generator().manual_seed(0))
    assert run(pruned, same).isfinite().all()


def _shape(variant):
    from f3prune.testing import TINY_SHAPES

    return TINY_SHAPES[variant]


@pytest.mark.parametrize("grid", [TokenGrid(5, 4, 4), TokenGrid(5, 3, 5), TokenGrid(4, 1, 7)])
@pytest.mark.parametrize("replacement", [Window(1), Window(2), Pooled(2, 0), Pooled(3, 1), Pooled(4, 2)], ids=str)
@pytest.mark.parametrize("text", [0, 3])
def test_what_is_computed_is_the_dense_reference(grid, replacement, text):
    call = call_of(grid, text)
    torch.testing.assert_close(replacement.attend(call), replacement.reference(call), atol=1e-5, rtol=1e-5)
    boolean = torch.ones(2, 1, 1, call.key.shape[2], dtype=torch.bool)
    if text:
        boolean[1, ..., -1] = False
    additive = torch.zeros(boolean.shape).masked_fill(~boolean, -math.inf)
    for mask in (boolean, additive):
        masked = dataclasses.replace(call, mask=mask)
        torch.testing.assert_close(replacement.attend(masked), replacement.reference(masked), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [TokenGrid(3, 4, 4), TokenGrid(3, 3, 5)])
def test_patches_of_equal_tokens_are_the_tokens(grid):
    """With the log of their number in the score, patches of equal keys weigh what the keys weighed: nothing is lost."""
    call = call_of(grid, text=2)
    frame = torch.arange(grid.frames).repeat_interleave(grid.tokens_per_frame)
    key, value = call.key.clone(), call.value.clone()
    for tensor in (key, value):
        tensor[:, :, call.video] = tensor[:, :, frame * grid.tokens_per_frame]
    equal = dataclasses.replace(call, key=key, value=value)
    torch.testing.assert_close(Pooled(2).attend(equal), equal.dense(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [TokenGrid(5, 4, 4), TokenGrid(5, 3, 5)])
@pytest.mark.parametrize("replacement", [Window(1), Window(2), Pooled(2, 0), Pooled(3, 1)], ids=str)
def test_cost_follows_the_keys_that_are_seen(monkeypatch, grid, replacement):
    """Near frames whole, far ones by ceil(H / r) · ceil(W / r) patches, and text: no score more.

    Text sees all tokens, or all patches, and text.
    """
    scores = 0
    plain = F.scaled_dot_product_attention

    def counting(query, key, *args, **kwargs):
        nonlocal scores
        scores += query.shape[:-1].numel() * key.shape[-2]
        return plain(query, key, *args, **kwargs)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", counting)
    text = 3
    call = call_of(grid, text)
    replacement.attend(call)
    pool = getattr(replacement, "pool", None)
    patches = math.prod(-(-side // pool) for side in (grid.height, grid.width)) if pool else 0
    keys = 0
    for frame in range(grid.frames):
        near = sum(abs(frame - other) <= replacement.window for other in range(grid.frames))
        keys += near * grid.tokens_per_frame + (grid.frames - near) * patches + text
    read = (grid.frames * patches if pool else grid.video_tokens) + text
    assert scores == 2 * 2 * (grid.tokens_per_frame * keys + text * read)


@pytest.mark.parametrize("variant", JOINT)
def test_the_token_grid_has_rows_and_columns_where_the_latents_have_them(variant):
    """Change one place of the latents: of the first site's values, that place's token changes and no other."""
    subject = subject_of(variant)
    grid, axis = subject.grid, subject.family.frame_axis
    site = next(iter(subject.calibration.sites))
    seen = []

    def keep(call):
        seen.append(call.value[:, :, call.video].clone())
        return call.dense()

    latents = subject.inputs[subject.family.latents]
    frame, row, column = 1, grid.height - 1, grid.width - 2
    moved = latents.clone()
    if latents.ndim == 3:
        moved[:, (frame * grid.height + row) * grid.width + column] += 1.0
    else:
        video = moved.movedim((subject.family.channels(latents), axis), (1, 2))  # b c f h w, a view
        tall, wide = video.shape[-2] // grid.height, video.shape[-1] // grid.width
        deep = video.shape[2] // (grid.references + grid.frames)
        video.narrow(2, (grid.references + frame) * deep, 1)[..., row * tall, column * wide] += 1.0
    with AttentionHook(subject.denoiser, subject.family, {site: keep}):
        for given in (latents, moved):
            run(subject.denoiser, {**subject.inputs, subject.family.latents: given})
    # A model may attend sample by sample.
    before, after = torch.cat(seen).chunk(2)
    changed = (after - before).abs().amax((0, 1, 3)).unflatten(0, (grid.frames, grid.height, grid.width))
    assert [tuple(place) for place in (changed > 1e-6).nonzero().tolist()] == [(frame, row, column)]


@pytest.mark.parametrize("variant", JOINT)
def test_masks_speak_of_text_alone(variant):
    """Patches have no mask: no family hides a video token from another."""
    subject = subject_of(variant)
    masks = []

    def keep(call):
        if call.mask is not None:
            mask = call.mask if call.mask.dtype == torch.bool else call.mask == 0
            masks.append(mask.expand(*mask.shape[:-1], call.key.shape[2])[..., call.video])
        return call.dense()

    with AttentionHook(subject.denoiser, subject.family, dict.fromkeys(subject.calibration.sites, keep)):
        run(subject.denoiser, subject.inputs)
    assert all(bool(mask.all()) for mask in masks)


def test_a_mode_is_added_in_one_place(tmp_path):
    """Everything that knows modes takes a registered one: configuration, scores, masks, baking, saving."""

    @register("first-frame")
    @dataclasses.dataclass(frozen=True)
    class FirstFrame(Replacement):
        title: ClassVar[str] = "the first frame and text"
        layouts: ClassVar[tuple[str, ...]] = ("spatiotemporal",)

        def attend(self, call):
            seen = torch.zeros(call.key.shape[2], dtype=torch.bool)
            seen[: call.video.start + call.tokens_per_frame] = True
            seen[call.video.stop :] = True
            keys, values = call.key[:, :, seen], call.value[:, :, seen]
            return F.scaled_dot_product_attention(call.query, keys, values, scale=call.scale)

        def reference(self, call):
            return self.attend(call)

    try:
        assert "first-frame" in mode_names()
        subject = subject_of("cogvideox")
        for granularity in ("layer", "head"):
            config = PruneConfig(0.5, granularity, mode="first-frame", score="aas")
            masks = select_masks(subject.calibration, config)
            assert Masks.from_json(masks.to_json()) == masks
            pruned = prune_denoiser(copy.deepcopy(subject.denoiser), masks)
            assert relative(run(pruned, subject.inputs), subject.dense) > 1e-4
            save_pruned(pruned, tmp_path / granularity)
            assert torch.equal(run(load_pruned(tmp_path / granularity), subject.inputs), run(pruned, subject.inputs))
    finally:
        del _REGISTRY["first-frame"]


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("latte", {"mode": "window"}, "mode window is for spatiotemporal attention, not temporal"),
        ("latte", {"mode": "pooled"}, "mode pooled is for spatiotemporal attention, not temporal"),
        ("cogvideox", {"mode": "static"}, "use mode window or pooled"),
        (
            "cogvideox",
            {"mode": "pooled:4"},
            "`pool` is 4, larger than the 2 × 3 tokens of a frame: use at most 3",
        ),
        ("cogvideox", {"mode": "window:2"}, "`window` is 2, which spans all 3 frames: use at most 1"),
        ("cogvideox", {"mode": "pooled:2:2"}, "`window` is 2, which spans all 3 frames"),
    ],
)
def test_what_has_no_meaning_at_a_site_is_refused_when_masks_are_made(variant, options, message):
    with pytest.raises(InputError, match=message) as error:
        select_masks(subject_of(variant).calibration, PruneConfig(0.5, score="aas", **options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "nothing"}, "`mode` is 'nothing', expected one of drop, local, pooled, static, window"),
        ({"mode": "local:1"}, "`mode` is 'local:1', expected local, with whole numbers"),
        ({"mode": "pooled:two"}, "expected pooled:POOL:WINDOW, with whole numbers"),
        ({"mode": "window:0"}, "`window` is 0, expected at least 1"),
        ({"mode": "pooled:1"}, "`pool` is 1, expected patches of at least 2"),
        ({"mode": "pooled", "granularity": "frame-pair"}, "has no meaning for frame pairs: use `mode='local'`"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PruneConfig(0.5, **options)


def test_what_the_messages_say_works():
    calibration = subject_of("cogvideox").calibration
    for mode in ("pooled:3:0", "window:1", "pooled:2:1"):
        assert select_masks(calibration, PruneConfig(0.5, score="aas", mode=mode)).mode == mode
    assert PruneConfig(0.5, "frame-pair", mode="local").mode == "local"


def test_options_behind_colons_and_by_name_are_the_same():
    assert replacement_of("pooled:2:1") == replacement_of("pooled", pool=2, window=1) == Pooled(2, 1)
    assert replacement_of("pooled:2") == Pooled(2) == replacement_of(Pooled(2).spec)
    assert PruneConfig(0.5, mode="pooled").mode == "pooled:4:0"
    with pytest.raises(InputError, match="mode local has no option window: leave window out"):
        replacement_of("local", window=1)


def test_maps_are_kept_to_the_bit():
    maps = torch.rand(3, 4, 4)
    assert torch.equal(FrameMaps.of(maps).tensor(), maps)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    subject = subject_of("wan")
    pruned = subject.pruned(0.5, "head")
    pruned.proj_out.register_parameter("lora_A", torch.nn.Parameter(torch.ones(2, 2)))
    with pytest.raises(InputError, match=r"other tensors than its configuration says \(1, such as proj_out\.lora_A\)"):
        save_pruned(pruned, tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()
