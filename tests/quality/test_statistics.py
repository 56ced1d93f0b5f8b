"""Bootstrap intervals, verdicts and the paired test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from f3prune.core.errors import InputError
from f3prune.quality.statistics import difference, estimate, frechet_difference, interval, paired_test, verdict

floats = st.lists(st.floats(-100, 100), min_size=2, max_size=30)


@settings(max_examples=30, deadline=None)
@given(floats, st.integers(0, 100))
def test_an_interval_lies_within_the_values_and_is_repeatable(values, seed):
    array = np.array(values)
    low, high = interval(array, seed=seed, resamples=200)
    assert array.min() - 1e-9 <= low <= high <= array.max() + 1e-9
    assert interval(array, seed=seed, resamples=200) == (low, high)


def test_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=80)
    ours = interval(values, resamples=20000)
    theirs = bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_covers_the_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = interval(draw.standard_normal(60), resamples=400, seed=seed)
        hits += low <= 0.0 <= high
    assert 180 <= hits <= 200


def test_missing_values_are_left_out():
    values = np.array([1.0, np.nan, 3.0])
    assert estimate(values).value == 2.0
    assert interval(np.array([1.0, np.nan])) is None
    with pytest.raises(InputError, match="none of 2 samples has a value"):
        estimate(np.full(2, np.nan))


def test_pairing_decides_what_unpaired_spread_would_hide():
    dense = np.random.default_rng(1).normal(0.0, 10.0, 40)
    pruned = dense - 0.5
    found = difference(dense, pruned, "higher")
    assert (found.value, found.verdict) == (pytest.approx(-0.5), "worse")
    assert difference(dense, pruned, "lower").verdict == "better"
    assert difference(dense, pruned, None).verdict == "undecided"
    assert difference(dense, dense, "lower").verdict == "undecided"


def test_few_samples_never_decide():
    assert verdict((1.0, 2.0), "higher", 5) == "undecided"
    assert verdict((1.0, 2.0), "higher", 6) == "better"
    assert difference(np.zeros(5), np.ones(5), "higher").verdict == "undecided"


def test_the_paired_test_is_exact_for_few_pairs():
    assert paired_test(np.zeros(5), np.arange(1.0, 6.0)) == pytest.approx(2 / 2**5)
    assert paired_test(np.ones(4), np.ones(4)) == 1.0
    assert paired_test(np.zeros(60), np.ones(60)) == pytest.approx(2 / 10000)


def test_frechet_intervals_hold_the_values_and_the_verdict_is_right():
    draw = np.random.default_rng(0)
    real, dense = draw.standard_normal((2, 200, 1, 16))
    pruned = dense + 1.0
    found_dense, found_pruned, change = frechet_difference(dense, pruned, real, resamples=100)
    for found in (found_dense, found_pruned, change):
        assert found.interval[0] < found.value < found.interval[1]
    assert change.verdict == "worse"
    assert change.value == pytest.approx(found_pruned.value - found_dense.value)
    assert frechet_difference(dense, dense, real, resamples=50)[2].verdict == "undecided"


def test_equal_models_seldom_differ_in_frechet_distance():
    """Both models draw from one distribution: 5 % of verdicts may claim a difference, here of 60."""
    draw = np.random.default_rng(0)
    decided = 0
    for seed in range(60):
        shared = draw.standard_normal((60, 1, 4))
        dense, pruned = (0.3 + shared + 0.5 * draw.standard_normal((60, 1, 4)) for _ in range(2))
        real = draw.standard_normal((80, 1, 4))
        decided += frechet_difference(dense, pruned, real, resamples=100, seed=seed)[2].verdict != "undecided"
    assert decided <= 7


def test_frechet_resamples_are_quick():
    import time

    real, dense, pruned = np.random.default_rng(0).standard_normal((3, 200, 1, 64))
    start = time.process_time()
    frechet_difference(dense, pruned, real, resamples=200)
    assert time.process_time() - start < 10.0


def test_wrong_input_is_named():
    with pytest.raises(InputError, match="3 dense with 2 pruned"):
        difference(np.zeros(3), np.zeros(2), "lower")
    with pytest.raises(InputError, match="3 dense with 2 pruned"):
        paired_test(np.zeros(3), np.zeros(2))
    with pytest.raises(InputError, match="none of 1 pairs"):
        paired_test(np.zeros(1), np.full(1, np.nan))
    with pytest.raises(InputError, match="confidence 95"):
        interval(np.arange(5.0), confidence=95)
    with pytest.raises(InputError, match="0 resamples"):
        interval(np.arange(5.0), resamples=0)
    with pytest.raises(InputError, match="the same prompts"):
        frechet_difference(np.zeros((9, 1, 2)), np.zeros((8, 1, 2)), np.zeros((9, 1, 2)))
    with pytest.raises(InputError, match="one network"):
        frechet_difference(np.zeros((9, 1, 2)), np.zeros((9, 1, 2)), np.zeros((9, 1, 3)))
