"""Who is faster at equal quality, on numbers made by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from f3prune.bench.equal_quality import CAP_DB, TIE_DB, Point, hardest, matches

OWN = [
    Point("dense", 10.0, None, own=True),
    Point("half", 6.0, 40.0, own=True, pruned=True),
    Point("all", 3.0, 25.0, own=True, pruned=True),
]


def match(*others: Point) -> dict[str, tuple[str | None, float | None]]:
    found = matches([*others, *OWN])
    return {m.other.name: (m.own.name if m.own else None, m.ratio) for m in found}


def test_the_fastest_of_ours_that_is_as_close_to_dense_is_chosen() -> None:
    assert match(
        Point("exact", 12.0, None),
        Point("cache", 9.0, 39.5),
        Point("rough cache", 2.0, 24.9),
        Point("equal PSNR", 12.0, 40.0),
    ) == {
        "exact": ("dense", 1.2),
        "cache": ("half", 1.5),
        "rough cache": ("all", 2.0 / 3.0),
        "equal PSNR": ("half", 2.0),
    }


def test_rounding_decides_nothing() -> None:
    (found,) = matches([Point("other", 2.0, 40.0), Point("ours", 1.0, 39.95, own=True)])
    assert found.ratio == 2.0
    (found,) = matches([Point("other", 2.0, 40.0), Point("ours", 1.0, 39.8, own=True)])
    assert found.own is None


def test_above_the_cap_all_are_equal() -> None:
    own = [Point("rounded", 5.0, CAP_DB + 1, own=True)]
    (found,) = matches([Point("other", 10.0, 300.0), *own])
    assert (found.own, found.ratio) == (own[0], 2.0)


def test_where_none_of_ours_is_as_good_there_is_no_ratio_and_nothing_is_harder() -> None:
    own = [Point("rough", 1.0, 20.0, own=True)]
    found = matches([Point("better", 10.0, 30.0), Point("worse", 0.5, 10.0), *own])
    assert found[0].own is None
    assert found[0].ratio is None
    assert hardest(found) == found[0]
    assert hardest(found[1:]) == found[1]
    assert hardest([]) is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        matches([Point("odd", seconds, 30.0)])


points = st.lists(
    st.builds(
        Point,
        name=st.text(min_size=1, max_size=3),
        seconds=st.floats(1e-3, 1e3),
        psnr=st.none() | st.floats(-10.0, 200.0),
        own=st.booleans(),
    ),
    max_size=12,
)


@given(points)
def test_what_is_chosen_is_as_good_and_nothing_as_good_is_faster(given_points: list[Point]) -> None:
    found = matches(given_points)
    assert [m.other for m in found] == [p for p in given_points if not p.own]
    for m in found:
        as_good = [p for p in given_points if p.own and p.quality >= m.other.quality - TIE_DB]
        assert (m.own is None) == (not as_good)
        if m.own is not None:
            assert m.own in as_good
            assert m.own.seconds == min(p.seconds for p in as_good)
    worst = hardest(found)
    if worst is not None and worst.ratio is not None:
        assert all(m.ratio is not None and m.ratio >= worst.ratio for m in found)
