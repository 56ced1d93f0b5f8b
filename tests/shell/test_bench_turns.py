"""Timing is fair: every contestant runs equally often, warmed up, and none always follows the same other one."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from f3prune.bench.speed import BenchOptions, alternate, summary


def test_turns_are_balanced_and_predecessors_vary() -> None:
    turns: list[str] = []
    contestants = {name: lambda name=name: turns.append(name) for name in "abcd"}
    ticks: list[int] = []
    options = BenchOptions(rounds=12, warm_up=2)
    seconds = alternate(contestants, {}, options, torch.device("cpu"), lambda: ticks.append(1))
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abcd", 12)
    assert len(ticks) == 14
    # A quick contestant is called twice in a row, and the second call counts.
    assert turns[::2] == turns[1::2]
    order = turns[::2]
    assert all(sorted(order[i : i + 4]) == list("abcd") for i in range(0, len(order), 4))
    followed = {(before, after) for before, after in itertools.pairwise(order) if before != after}
    assert len(followed) == 12


def test_a_budget_ends_the_measurement_after_three_rounds() -> None:
    options = BenchOptions(rounds=50, warm_up=1, budget_s=0.0)
    seconds = alternate({"a": lambda: None}, {}, options, torch.device("cpu"), lambda: None)
    assert len(seconds["a"]) == 3


@given(st.lists(st.floats(1e-6, 1e3), min_size=3, max_size=30))
def test_quartiles_are_ordered(values: list[float]) -> None:
    found = summary(values)
    assert min(values) == found["min"] <= found["quartile_1"] <= found["median"] <= found["quartile_3"] <= max(values)
    assert found["runs"] == len(values)
