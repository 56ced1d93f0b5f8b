"""Other measures than attention under the same interface: what each says, and what leave-one-out really leaves out."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from f3prune.calibration import (
    Calibration,
    PruneConfig,
    ScoreTable,
    count_trials,
    count_units,
    default_mode,
    denoise_synthetic,
    greedy,
    leave_one_out,
    magnitude_scores,
    prune_denoiser,
    rank_units,
    record_calls,
    select_masks,
    settled,
)
from f3prune.calibration.replacements import Local, replacement_of
from f3prune.calibration.scores import (
    Score,
    attention_scores,
    name_of,
    names,
    random_scores,
    register,
    reversed_scores,
    score_of,
)
from f3prune.calibration.scores._registry import _REGISTRY
from f3prune.core.errors import ArtifactError, InputError
from f3prune.testing import TINY_SHAPES
from tests.subjects import EVERYWHERE, relative, run, subject_of

VARIANTS = ["latte", "cogvideox", "animatediff"]
GRANULARITIES = ["layer", "head", "frame-pair"]


def pruned_units(masks):
    return {(name, head) for name, mask in masks.stages[0].sites.items() for head in mask.pruned_heads}


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_reversed_prunes_what_aas_keeps(granularity):
    calibration = subject_of("cogvideox").calibration
    low = select_masks(calibration, PruneConfig(0.5, granularity, score="aas"))
    high = select_masks(calibration, PruneConfig(0.5, granularity, score="reversed"))
    assert low.score == "aas"
    assert high.score == "reversed"
    assert not pruned_units(low) & pruned_units(high)


def test_random_follows_its_seed_and_nothing_else():
    calibration = subject_of("cogvideox").calibration
    chosen = [
        select_masks(calibration, PruneConfig(0.5, "head", score="random", score_seed=s)) for s in (0, 0, 1, 2, 3)
    ]
    assert chosen[0] == chosen[1]
    assert len({str(pruned_units(masks)) for masks in chosen}) > 1
    staged = select_masks(calibration, PruneConfig(0.5, "head", stages=3, score="random"))
    assert len({str(stage.sites) for stage in staged.stages}) >= 1
    assert [pruned_units(select_masks(calibration, PruneConfig(0.5, "head", score="random")))] == [
        {(n, h) for n, m in stage.sites.items() for h in m.pruned_heads} for stage in staged.stages[:1]
    ]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("granularity", "mode"), EVERYWHERE)
def test_leave_one_out_is_the_error_of_the_baked_model_without_that_unit(variant, granularity, mode):
    subject = subject_of(variant)
    calls = [(500.0, {**subject.inputs, "return_dict": False})]
    table = leave_one_out(subject.denoiser, subject.calibration, calls, granularity, mode)
    torch.testing.assert_close(run(subject.denoiser, subject.inputs), subject.dense)  # the hooks are gone
    # The unit of least score, pruned alone and baked, must lose exactly what the score says.
    count = count_units(subject.calibration, granularity)
    config = PruneConfig(1.5 / count, granularity, mode=mode, score="leave-one-out")
    masks = select_masks(subject.calibration, config, table)
    baked = prune_denoiser(copy.deepcopy(subject.denoiser), masks)
    values = torch.cat(
        [
            value[0][~torch.eye(value.shape[-1], dtype=torch.bool)] if granularity == "frame-pair" else value.flatten()
            for value in table.values.values()
        ]
    )
    assert len(values) == count
    assert relative(run(baked, subject.inputs), subject.dense) == pytest.approx(float(values.min()) ** 0.5, rel=2e-3)


def error_without(subject, granularity, mode, names_or_heads):
    """Squared relative error of a baked model from which these ``(site, head)`` went; head ``None`` is all heads."""
    masks = select_masks(subject.calibration, PruneConfig(0.0, granularity, mode=mode, score="aas"))
    stage = masks.stages[0]
    sites = dict(stage.sites)
    for name, head in names_or_heads:
        gone = range(sites[name].heads) if head is None else [*sites[name].pruned_heads, head]
        mask = dataclasses.replace(sites[name], pruned_heads=tuple(sorted(gone)), replacement=replacement_of(mode))
        sites[name] = mask
    masks = dataclasses.replace(masks, stages=(dataclasses.replace(stage, sites=sites),))
    baked = prune_denoiser(copy.deepcopy(subject.denoiser), masks)
    return relative(run(baked, subject.inputs), subject.dense) ** 2


@pytest.mark.parametrize("mode", ["local", "drop"])
@pytest.mark.parametrize(("variant", "granularity"), [("latte", "layer"), ("cogvideox", "layer"), ("latte", "head")])
def test_greedy_takes_at_every_turn_what_the_baked_model_misses_least(variant, granularity, mode):
    subject = subject_of(variant)
    sites = list(subject.calibration.sites)
    calls, tried = [(500.0, {**subject.inputs, "return_dict": False})], []
    table = greedy(
        subject.denoiser,
        subject.calibration,
        calls,
        granularity,
        mode,
        "timesteps",
        sites,
        [(1000.0, 0.0)],
        lambda: tried.append(1),
    )
    torch.testing.assert_close(run(subject.denoiser, subject.inputs), subject.dense)  # the hooks are gone
    assert len(tried) == count_trials(subject.calibration, granularity, "timesteps", sites, 1)
    places = {
        (name, head): float(value.reshape(-1)[head or 0])
        for name, value in table.values.items()
        for head in ([None] if granularity == "layer" else range(value.shape[-1]))
    }
    order = sorted(places, key=lambda unit: places[unit])
    assert [places[unit] for unit in order] == list(range(len(order)))
    for turn in range(min(3, len(order) - 1)):
        losses = {unit: error_without(subject, granularity, mode, [*order[:turn], unit]) for unit in order[turn:]}
        assert losses[order[turn]] <= min(losses.values()) * (1 + 2e-3)


def test_greedy_has_an_order_for_every_stage_and_leaves_protected_sites_out():
    subject = subject_of("cogvideox")
    sites, other = list(subject.calibration.sites), {**subject.inputs, "return_dict": False}
    louder = {**other, "hidden_states": 3 * other["hidden_states"]}
    arguments = (subject.denoiser, subject.calibration)
    rest = ("head", "local", "timesteps", sites[1:])
    early, late = (
        greedy(*arguments, [(timestep, call)], *rest, [(1000.0, 0.0)])
        for timestep, call in ((900.0, other), (100.0, louder))
    )
    both = greedy(*arguments, [(900.0, other), (100.0, louder)], *rest, [(1000.0, 500.0), (499.0, 0.0)])
    for name, value in both.values.items():
        assert torch.equal(value, torch.cat([early.values[name], late.values[name]]))
    units = sum(subject.calibration.sites[name].heads for name in sites[1:])
    assert float(both.values[sites[0]].min()) == units
    assert {int(v) for name in sites[1:] for v in early.values[name].flatten()} == set(range(units))


def test_greedy_over_layers_gives_a_head_one_place_at_all_sites():
    subject = subject_of("cogvideox")
    sites, calls = list(subject.calibration.sites), [(500.0, {**subject.inputs, "return_dict": False})]
    table = greedy(subject.denoiser, subject.calibration, calls, "head", "local", "layers", sites, [(1000.0, 0.0)])
    first = table.values[sites[0]]
    assert sorted(first.flatten().tolist()) == list(range(first.shape[-1]))
    assert all(torch.equal(value, first) for value in table.values.values())


def test_an_output_that_is_no_number_any_more_is_no_small_loss(monkeypatch):
    subject = subject_of("latte")
    first, *_ = subject.calibration.sites
    monkeypatch.setattr(Local, "attend", lambda self, call: torch.full_like(call.query, torch.nan))
    calls = [(500.0, {**subject.inputs, "return_dict": False})]
    table = leave_one_out(subject.denoiser, subject.calibration, calls, "layer", "local")
    assert float(table.values[first]) == float("inf")


def test_frame_pairs_do_not_go_one_after_another():
    with pytest.raises(InputError, match="use score leave-one-out or aas"):
        PruneConfig(0.5, "frame-pair", score="greedy")


def test_calls_of_one_timestep_are_averaged():
    subject = subject_of("latte")
    call = {**subject.inputs, "return_dict": False}
    once = leave_one_out(subject.denoiser, subject.calibration, [(5.0, call)], "layer", "local")
    twice = leave_one_out(subject.denoiser, subject.calibration, [(5.0, call), (5.0, call)], "layer", "local")
    assert once.timesteps == twice.timesteps == (5.0,)
    for name, value in once.values.items():
        torch.testing.assert_close(value, twice.values[name])


@pytest.mark.parametrize(
    ("value", "says"), [(0.0, r"is zero.*`score='aas'`"), (float("nan"), "is not finite: its weights hold NaN")]
)
def test_an_output_that_nothing_compares_with_is_refused(value, says):
    subject = subject_of("latte")
    broken = copy.deepcopy(subject.denoiser)
    broken.proj_out.weight.data.fill_(value)
    broken.proj_out.bias.data.zero_()
    calls = [(5.0, {**subject.inputs, "return_dict": False})]
    with pytest.raises(InputError, match=f"timestep 5 {says}"):
        leave_one_out(broken, subject.calibration, calls, "layer", "local")


def test_magnitude_by_hand():
    subject = subject_of("latte")
    table = magnitude_scores(subject.denoiser, subject.calibration, "head")
    name, values = next(iter(table.values.items()))
    site = subject.denoiser.get_submodule(name)
    width = site.to_v.weight.shape[0] // site.heads
    expected = [
        (site.to_out[0].weight[:, h * width : (h + 1) * width] @ site.to_v.weight[h * width : (h + 1) * width]).norm()
        for h in range(site.heads)
    ]
    torch.testing.assert_close(values[0], torch.stack(expected).double(), rtol=1e-5, atol=0)
    layers = magnitude_scores(subject.denoiser, subject.calibration, "layer")
    torch.testing.assert_close(layers.values[name], values.mean(1))
    with pytest.raises(InputError, match="share"):
        magnitude_scores(subject.denoiser, subject.calibration, "frame-pair")


def by_hand(maps: list[list[list[float]]]) -> Calibration:
    """One site of one head: ``maps`` is ``t f f``; what is left of a row goes to text."""
    mass = torch.tensor(maps)
    mass = torch.cat([mass, 1 - mass.sum(-1, keepdim=True)], dim=-1)[:, None]
    site = subject_of("wan").calibration.sites
    return dataclasses.replace(
        subject_of("wan").calibration,
        timesteps=tuple(float(t) for t in range(len(maps), 0, -1)),
        sites={"s": dataclasses.replace(next(iter(site.values())), heads=1)},
        mass={"s": mass},
    )


def test_far_mass_by_hand():
    """Frames 0 and 2 are two apart: what they pay one another is beyond a window of 1."""
    found = by_hand([[[0.2, 0.3, 0.5], [0.1, 0.1, 0.1], [0.25, 0.0, 0.0]]])
    for mode, expected in (("window:1", 0.75), ("local", 0.75), ("pooled:2:0", 1.25)):
        config = PruneConfig(0.5, mode=mode, score="far-mass")
        assert rank_units(torch.nn.Identity(), found, config).values["s"].tolist() == pytest.approx([expected])


def test_map_variance_by_hand():
    """Each of two steps is 0.1 from the mean in four entries: two in the map, two in what is left for text."""
    found = by_hand([[[0.5, 0.1], [0.1, 0.5]], [[0.7, 0.1], [0.1, 0.7]]])
    config = PruneConfig(0.5, mode="local", score="map-variance")
    assert rank_units(torch.nn.Identity(), found, config).values["s"].tolist() == pytest.approx([0.04, 0.04])
    steady = by_hand([[[0.5, 0.1], [0.1, 0.5]]] * 2)
    assert rank_units(torch.nn.Identity(), steady, config).values["s"].abs().max() < 1e-15


def test_a_stage_takes_its_own_timesteps_or_the_nearest():
    table = ScoreTable("layer", (900.0, 500.0), {"s": torch.tensor([1.0, 4.0], dtype=torch.float64)})
    assert float(table.total()["s"]) == 5.0
    assert float(table.total((1000.0, 600.0))["s"]) == 1.0
    assert float(table.total((300.0, 100.0))["s"]) == 4.0


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_tables_come_back_from_disk(granularity, tmp_path):
    calibration = subject_of("latte").calibration
    for table in (
        attention_scores(calibration, granularity),
        reversed_scores(calibration, granularity),
        random_scores(calibration, granularity, 3),
    ):
        table.save(tmp_path / "scores.safetensors")
        back = ScoreTable.load(tmp_path / "scores.safetensors")
        assert (back.granularity, back.timesteps, list(back.values)) == (
            table.granularity,
            table.timesteps,
            list(table.values),
        )
        assert all(torch.equal(back.values[name], value) for name, value in table.values.items())
    (tmp_path / "scores.safetensors").write_bytes(b"cut short")
    with pytest.raises(ArtifactError, match=r"run `prune\(...\)` again"):
        ScoreTable.load(tmp_path / "scores.safetensors")


def test_scores_that_need_the_model_are_not_made_up():
    with pytest.raises(InputError, match="give the table that rank_units makes"):
        select_masks(subject_of("latte").calibration, PruneConfig(0.5, score="leave-one-out"))


def test_every_score_is_a_file_that_is_found_by_its_name():
    assert names() == (
        "aas",
        "far-mass",
        "greedy",
        "leave-one-out",
        "magnitude",
        "map-variance",
        "random",
        "reversed",
    )
    assert all(name_of(score_of(name)) == name for name in names())
    assert len({score_of(name).title for name in names()}) == len(names())


def test_a_score_that_is_not_registered_says_how_to_register_it():
    class Forgotten(Score):
        granularities = ("layer",)

        def measure(self, measurement):
            raise AssertionError("it is refused before it measures")

    with pytest.raises(InputError, match=r"Forgotten is no score: decorate the class with register\(name\)"):
        Forgotten().refusal("head")
    assert name_of(type(score_of("magnitude"))()) == "magnitude"


def test_a_score_from_elsewhere_ranks_units_once_it_is_registered():
    """One class is all it takes: configurations, masks and messages know it."""

    @register("by-depth")
    class ByDepth(Score):
        title = "depth"
        granularities = ("layer",)

        def measure(self, measurement):
            table = attention_scores(measurement.calibration, measurement.config.granularity)
            values = {name: torch.full_like(value, -k) for k, (name, value) in enumerate(table.values.items())}
            return ScoreTable(table.granularity, table.timesteps, values)

    try:
        assert names()[-1] == "by-depth"
        subject = subject_of("latte")
        masks = select_masks(subject.calibration, PruneConfig(0.5, score="by-depth"))
        (stage,) = masks.stages
        pruned = [name for name, mask in stage.sites.items() if mask.pruned_heads]
        assert pruned == list(stage.sites)[-len(pruned) :]
        with pytest.raises(InputError, match="by-depth ranks layers only, not heads"):
            PruneConfig(0.5, "head", score="by-depth")
        with pytest.raises(InputError, match="there is a score aas already"):
            register("aas")(ByDepth)
    finally:
        _REGISTRY.pop("by-depth")
    with pytest.raises(InputError, match="expected one of aas, far-mass, greedy"):
        PruneConfig(0.5, score="by-depth")


def test_the_default_score_is_one_for_python_and_the_command_line():
    """Leave-one-out, which needs the model: the message says how to give it, and doing so works."""
    subject = subject_of("latte")
    config = PruneConfig(0.5)
    assert config.score == "leave-one-out"
    assert PruneConfig(0.5, "frame-pair").score == "aas"
    with pytest.raises(InputError, match="give the table that rank_units makes"):
        select_masks(subject.calibration, config)
    shape = TINY_SHAPES["latte"]
    calls = record_calls(subject.denoiser, lambda: denoise_synthetic(subject.denoiser, shape, 2), 2)
    assert [timestep for timestep, _ in calls] == [999.0, 1.0]
    seven = record_calls(subject.denoiser, lambda: denoise_synthetic(subject.denoiser, shape, 7), 3)
    assert [timestep for timestep, _ in seven] == [999.0, 500.0, 1.0]
    table = rank_units(subject.denoiser, subject.calibration, config, calls)
    expected = leave_one_out(subject.denoiser, subject.calibration, calls, "layer", "static")
    assert all(torch.equal(table.values[name], expected.values[name]) for name in expected.values)
    assert select_masks(subject.calibration, config, table).score == "leave-one-out"
    with pytest.raises(InputError, match="record some and pass calls"):
        rank_units(subject.denoiser, subject.calibration, config)


@pytest.mark.parametrize(
    ("variant", "granularity", "mode"),
    [
        ("latte", "layer", "static"),
        ("animatediff", "head", "static"),
        ("latte", "frame-pair", "local"),
        ("wan", "layer", "local"),
    ],
)
def test_the_default_mode_goes_by_the_layout(variant, granularity, mode):
    masks = select_masks(subject_of(variant).calibration, PruneConfig(0.5, granularity, score="aas"))
    assert masks.mode == mode
    assert {m.stand_in.spec for m in masks.stages[0].sites.values() if not m.untouched} == {mode}


def test_sites_of_two_layouts_take_local_and_protected_ones_do_not_count():
    assert default_mode(["temporal", "sparse-causal"]) == "local"
    assert default_mode(["temporal"], autoregressive=True) == "local"
    mixed = subject_of("latte").calibration
    first, *_ = mixed.sites
    sites = {**mixed.sites, first: dataclasses.replace(mixed.sites[first], layout="spatiotemporal")}
    mixed = dataclasses.replace(mixed, sites=sites)
    assert settled(PruneConfig(0.5), mixed).mode == "local"
    assert settled(PruneConfig(0.5, protect=(first,)), mixed).mode == "static"
    with pytest.raises(InputError, match="depends on the model"):
        _ = PruneConfig(0.5).replacement
