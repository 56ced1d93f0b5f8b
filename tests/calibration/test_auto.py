"""Mode auto: the knapsack, the products it counts, and the assignment."""

from __future__ import annotations

import copy
import itertools
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f3prune.calibration import Masks, PruneConfig, leave_one_out, prune_denoiser
from f3prune.calibration.auto import assign, candidates, count_pruned, everywhere
from f3prune.calibration.auto.assign import _Measured
from f3prune.calibration.auto.knapsack import BINS, Item, least_losses
from f3prune.calibration.replacements import replacement_of
from f3prune.calibration.scores import OutputError
from f3prune.core.errors import InputError
from f3prune.exporter import ExportConfig, export_denoiser, graph_costs
from tests.subjects import relative, run, subject_of

ITEMS = st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 10)), max_size=3)


@settings(deadline=None, max_examples=60)
@given(st.lists(ITEMS, min_size=1, max_size=5), st.floats(0.05, 1.0))
def test_no_other_choice_that_saves_as_much_loses_less(groups, share):
    made = {str(g): [Item(k, *item) for k, item in enumerate(items)] for g, items in enumerate(groups)}
    most = sum(max((item.saved for item in items), default=0.0) for items in made.values())
    wanted = share * most
    found = least_losses(made, wanted)
    every = [
        (sum(item.loss for item in chosen if item), sum(item.saved for item in chosen if item))
        for chosen in itertools.product(*([None, *items] for items in made.values()))
    ]
    # A choice that stays above what is wanted after rounding was seen.
    seen = [loss for loss, saved in every if saved >= wanted * (1 + len(made) / BINS)]
    for choice in found:
        assert sum(item.saved for item in choice.values()) >= wanted * (1 - 1e-9)
    losses = [sum(item.loss for item in choice.values()) for choice in found]
    assert losses == sorted(losses)
    if seen:
        assert losses[0] <= min(seen) + 1e-9


def test_what_cannot_be_saved_has_no_choice_and_nothing_wanted_chooses_nothing():
    groups = {"a": [Item("x", 1.0, 2.0)], "b": [Item("y", math.inf, 5.0)]}
    assert least_losses(groups, 3.0) == []
    assert least_losses(groups, 0.0) == [{}]
    assert least_losses(groups, 2.0) == [{"a": groups["a"][0]}]


def counted(subject, mode):
    sites = [s for s in subject.family.find_sites(subject.denoiser, "all") if s.name in subject.calibration.sites]
    config, inputs = subject.denoiser.config, {**subject.inputs, "return_dict": False}
    return count_pruned(type(subject.denoiser).__name__, config, everywhere(subject.calibration, mode), inputs, sites)


@pytest.mark.parametrize(
    ("variant", "mode"), [("latte", "static"), ("cogvideox-rotary", "pooled:2:0"), ("cogvideox-rotary", "drop")]
)
def test_products_are_those_of_the_exported_graph(variant, mode, tmp_path):
    """Counted without running anything, and in the graph that is exported: the same saving."""
    subject = subject_of(variant)
    dense, pruned = counted(subject, None), counted(subject, mode)
    at_sites = sum(dense.sites[name].total - pruned.sites[name].total for name in dense.sites)
    assert dense.total - pruned.total == at_sites
    flops = []
    for name, masks in (("dense", None), ("pruned", everywhere(subject.calibration, mode))):
        model = subject.denoiser if masks is None else prune_denoiser(_copy(subject), masks)
        result = export_denoiser(model, subject.inputs, tmp_path / name, ExportConfig(self_test=False))
        flops.append(graph_costs(result.path, {"batch": 2}).matmul_flops)
    assert dense.total == flops[0]
    if mode == "drop":
        # The graph also loses what scaled and shifted the dropped contribution.
        assert flops[1] < pruned.total < flops[0]
    else:
        assert pruned.total == flops[1]


def _copy(subject):
    return copy.deepcopy(subject.denoiser)


class Assigned:
    """All that ``assign`` needs, of a tiny denoiser."""

    def __init__(self, variant, specs):
        self.subject = subject_of(variant)
        calibration = self.subject.calibration
        self.specs = specs
        self.calls = [(calibration.timesteps[1], {**self.subject.inputs, "return_dict": False})]
        self.tables = {
            spec: leave_one_out(self.subject.denoiser, calibration, self.calls, "layer", spec) for spec in specs
        }
        self.dense = counted(self.subject, None)
        self.pruned = {spec: counted(self.subject, spec) for spec in specs}
        self.error = OutputError(self.subject.denoiser, calibration, self.calls, "layer", replacement_of("local"))

    def __call__(self, alpha=0.0, videos=None, **options):
        config = PruneConfig(alpha, mode="auto", candidates=self.specs, **options)
        together = lambda masks, bounds: float(self.error.of(masks).sum())  # noqa: E731
        return assign(self.subject.calibration, config, self.tables, self.dense, self.pruned, together, videos)


@pytest.fixture(scope="module")
def joint():
    return Assigned("cogvideox-rotary", ("local", "drop", "pooled:2:0"))


def test_the_saving_is_reached_by_the_best_of_what_was_tried_together(joint):
    choices = joint(0.3)
    assert choices.saved[0] >= 0.3
    masks = choices.masks
    assert Masks.from_json(masks.to_json()) == masks
    baked = prune_denoiser(_copy(joint.subject), masks)
    error = relative(run(baked, joint.subject.inputs), joint.subject.dense) ** 2
    assert error == pytest.approx(min(choices.errors[0]), rel=1e-3)
    saved = sum(offer.saved for offer in choices.offers[0] if offer.chosen)
    assert saved == pytest.approx(choices.saved[0])
    chosen = {offer.site: offer.mode for offer in choices.offers[0] if offer.chosen}
    assert chosen == {n: m.stand_in.spec for n, m in masks.stages[0].sites.items() if not m.untouched}


def test_videos_have_the_last_word(joint):
    seen = []

    def videos(finalists):
        seen.extend(finalists)
        return [20.0, 30.0, 25.0]

    choices = joint(0.3, videos=videos)
    assert choices.psnr == (20.0, 30.0, 25.0)
    assert choices.masks == seen[1]
    errors = [float(joint.error.of(masks).sum()) for masks in seen]
    assert errors == pytest.approx(sorted(choices.errors[0])[:3])
    chosen = {offer.site: offer.mode for offer in choices.offers[0] if offer.chosen}
    assert chosen == {n: m.stand_in.spec for n, m in seen[1].stages[0].sites.items() if not m.untouched}


def test_finalists_are_unlike_and_one_is_of_a_single_mode():
    def proposal(*names):
        return {f"site{k}": Item(name, 0.1, 1.0) for k, name in enumerate(names)}

    proposals = [
        proposal("drop", "local"),
        proposal("local", "drop"),
        proposal("drop", "window:1"),
        proposal("drop", "local", "window:1"),
        proposal("pooled:2:1", "pooled:2:0"),
        proposal("pooled:2:1", "pooled:2:1"),
    ]
    measured = _Measured({}, proposals, [], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert measured.finalists == [0, 2, 3, 5]
    only = _Measured({}, proposals[5:], [], [0.6])
    assert only.finalists == [0]


def test_each_mode_alone_is_among_what_is_measured(joint):
    choices = joint(0.15)
    seen = []
    joint(0.15, videos=lambda masks: seen.extend(masks) or [0.0] * len(masks))
    alone = [{m.stand_in.spec for m in masks.stages[0].sites.values() if not m.untouched} for masks in seen]
    assert any(len(modes) == 1 for modes in alone)
    assert len(choices.errors[0]) > 3


def test_a_speedup_is_reached_in_the_products_of_a_call(joint):
    choices = joint(speedup=1.05)
    assert choices.speedup[0] >= 1.05
    assert choices.masks.alpha == round(choices.saved[0], 4)


def test_every_stage_gets_an_assignment_and_protected_sites_stay_dense(joint):
    first, *_ = joint.subject.calibration.sites
    choices = joint(0.2, stages=2, protect=(first,))
    assert len(choices.masks.stages) == len(choices.offers) == 2
    for stage in choices.masks.stages:
        assert stage.sites[first].untouched
    assert first not in {offer.site for offers in choices.offers for offer in offers}


@pytest.mark.parametrize(("name", "much"), [("alpha", 0.99), ("speedup", 50.0)])
def test_what_is_too_much_names_the_most_which_can_be_had(name, much):
    joint = Assigned("cogvideox-rotary", ("local", "pooled:2:0"))
    with pytest.raises(InputError, match="at most") as error:
        joint(**{name: much})
    (_, most) = re.findall(r"\d+(?:\.\d+)?", str(error.value))
    assert joint(**{name: float(most)}).saved[0] > 0


@pytest.mark.parametrize(
    ("variant", "modes"),
    [
        ("latte", {"local", "drop", "static"}),
        ("tune_a_video", {"local", "drop", "static"}),
        ("cogvideox", {"local", "drop", "window", "pooled"}),
    ],
)
def test_of_all_modes_those_that_suit_are_offered(variant, modes):
    offered = candidates(subject_of(variant).calibration, PruneConfig(0.5, mode="auto"))
    assert {option.spec.partition(":")[0] for options in offered.values() for option in options} == modes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity": "head"}, "goes by `granularity` layer, not head"),
        ({"score": "aas"}, "goes by `score` leave-one-out, not aas"),
        ({"speedup": 0.9}, "`speedup` is 0.9, expected more than 1"),
        ({"mode": "local", "speedup": 1.2}, "`speedup` is for `mode='auto'`, not local"),
        ({"mode": "local", "candidates": ("drop",)}, "`candidates` is for `mode='auto'`, not local"),
        ({"candidates": ("nothing",)}, "`mode` is 'nothing', expected one of"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PruneConfig(**{"alpha": 0.5, "mode": "auto", **options})


def test_a_candidate_that_suits_no_site_is_refused():
    with pytest.raises(InputError, match="mode static is for temporal attention"):
        candidates(subject_of("cogvideox").calibration, PruneConfig(0.5, mode="auto", candidates=("static", "local")))
