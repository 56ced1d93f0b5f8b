"""AAS by hand, selection rules, and the round trip of masks.json."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f3prune.calibration import Calibration, Masks, PruneConfig, select_masks
from f3prune.calibration.aas import head_scores, pair_scores
from f3prune.calibration.calibration_file import SiteInfo
from f3prune.core.errors import ArtifactError, InputError, UnknownSiteError


def calibration_of(mass: dict[str, torch.Tensor]) -> Calibration:
    steps = next(iter(mass.values())).shape[0]
    return Calibration(
        family="cogvideox",
        timesteps=tuple(float(1000 - 100 * t) for t in range(steps)),
        sites={name: SiteInfo("spatiotemporal", m.shape[1]) for name, m in mass.items()},
        mass=mass,
        metadata={"prompts": "a 7 moving left"},
    )


def random_calibration(sites=3, steps=4, heads=2, frames=3, seed=0) -> Calibration:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(steps, heads, frames, frames + 1, generator=generator).softmax(-1)  # noqa: E731
    return calibration_of({f"blocks.{k}.attn1": draw() for k in range(sites)})


def two_frames(a: float, b: float) -> torch.Tensor:
    """One step, one head, two frames: frame 0 gives ``a`` to frame 1, frame 1 gives ``b`` to frame 0."""
    return torch.tensor([[1 - a, a, 0.0], [b, 1 - b, 0.0]])


def test_aas_by_hand():
    mass = torch.stack([torch.stack([two_frames(0.25, 0.5), two_frames(0.0, 1.0)])] * 2)
    calibration = calibration_of({"s": mass})
    torch.testing.assert_close(head_scores(calibration)["s"], torch.tensor([1.5, 2.0], dtype=torch.float64))
    torch.testing.assert_close(head_scores(calibration, (0, 1))["s"], torch.tensor([0.75, 1.0], dtype=torch.float64))
    expected = torch.tensor([[0.0, 0.25], [1.5, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(pair_scores(calibration)["s"], expected)


def test_smallest_scores_go_and_ties_by_site_order():
    mass = {name: two_frames(a, a)[None, None] for name, a in (("a", 0.5), ("b", 0.25), ("c", 0.25), ("d", 0.1))}
    masks = select_masks(calibration_of(mass), PruneConfig(0.5, score="aas"))
    assert [n for n, m in masks.stages[0].sites.items() if m.pruned_heads] == ["b", "d"]


@settings(max_examples=60, deadline=None)
@given(
    percent=st.integers(0, 100), granularity=st.sampled_from(["layer", "head", "frame-pair"]), seed=st.integers(0, 99)
)
def test_exactly_floor_alpha_n_units_are_pruned(percent, granularity, seed):
    calibration = random_calibration(seed=seed)
    masks = select_masks(calibration, PruneConfig(percent / 100, granularity, score="aas"))
    sites = masks.stages[0].sites.values()
    if granularity == "frame-pair":
        pruned = sum(3 * 3 - sum(map(len, m.kept_pairs)) for m in sites if m.kept_pairs is not None)
        total = 3 * 3 * 2
    else:
        pruned = sum(len(m.pruned_heads) for m in sites) // (2 if granularity == "layer" else 1)
        total = 3 if granularity == "layer" else 6
    assert pruned == percent * total // 100


def test_alpha_is_read_as_the_decimal_it_was_written_as():
    calibration = random_calibration(sites=50)
    masks = select_masks(calibration, PruneConfig(0.29, "head", score="aas"))
    assert sum(len(m.pruned_heads) for m in masks.stages[0].sites.values()) == 29
    assert math.floor(0.29 * 100) == 28


@pytest.mark.parametrize("granularity", ["head", "frame-pair"])
def test_aggregate_layers_shares_one_mask(granularity):
    masks = select_masks(random_calibration(), PruneConfig(0.5, granularity, "layers", score="aas"))
    assert len({(m.pruned_heads, m.kept_pairs) for m in masks.stages[0].sites.values()}) == 1


def test_aggregate_layers_refuses_sites_of_different_shapes():
    mixed = calibration_of({"a": torch.rand(1, 2, 3, 4), "b": torch.rand(1, 4, 3, 4)})
    with pytest.raises(InputError, match="one shape"):
        select_masks(mixed, PruneConfig(0.5, "head", "layers", score="aas"))


def test_protected_sites_are_neither_pruned_nor_counted():
    masks = select_masks(random_calibration(), PruneConfig(1.0, protect=("blocks.1.*",), score="aas"))
    assert [bool(m.pruned_heads) for m in masks.stages[0].sites.values()] == [True, False, True]
    with pytest.raises(UnknownSiteError, match=r"blocks\.0\.attn1"):
        select_masks(random_calibration(), PruneConfig(1.0, protect=("nothing.*",), score="aas"))


@settings(max_examples=30, deadline=None)
@given(
    stages=st.integers(1, 4), granularity=st.sampled_from(["layer", "head", "frame-pair"]), percent=st.integers(0, 100)
)
def test_stages_cover_the_schedule_and_round_trip(stages, granularity, percent):
    masks = select_masks(random_calibration(), PruneConfig(percent / 100, granularity, stages=stages, score="aas"))
    bounds = [s.steps for s in masks.stages]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 4
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
    assert Masks.from_json(masks.to_json()) == masks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "between 0 and 1"),
        ({"alpha": float("nan")}, "between 0 and 1"),
        ({"alpha": 0.5, "granularity": "row"}, "layer, head, frame-pair"),
        ({"alpha": 0.5, "granularity": "frame-pair", "mode": "drop"}, "no meaning"),
        ({"alpha": 0.5, "stages": 0}, "at least 1"),
    ],
)
def test_bad_options_name_the_value_and_the_choices(options, message):
    with pytest.raises(InputError, match=message):
        PruneConfig(**options)


def test_more_stages_than_steps_is_refused():
    with pytest.raises(InputError, match="only 4 steps"):
        select_masks(random_calibration(), PruneConfig(0.5, stages=5, score="aas"))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "stages": [1]}'])
def test_foreign_masks_are_refused(text):
    with pytest.raises(ArtifactError):
        Masks.from_json(text)


def test_calibration_round_trip_and_truncation(tmp_path):
    calibration = random_calibration()
    path = tmp_path / "aas.safetensors"
    calibration.save(path)
    loaded = Calibration.load(path)
    assert loaded.timesteps == calibration.timesteps
    assert loaded.sites == calibration.sites
    assert loaded.metadata == calibration.metadata
    assert all(torch.equal(loaded.mass[n], calibration.mass[n]) for n in calibration.mass)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="calibrate"):
        Calibration.load(path)
