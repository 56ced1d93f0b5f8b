"""Dataclasses survive JSON, and what is none of them is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from f3prune.core.json_values import from_json_values, json_values


@dataclass(frozen=True)
class Inner:
    value: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    table: Mapping[str, tuple[int, int]]
    rows: list[list[float]]
    kind: Literal["a", "b"] = "a"
    where: Path | None = None
    other: Inner | None = None
    size: int | str = 0
    loose: Any = None
    flag: bool = False
    counts: dict[str, int] = field(default_factory=dict)


WHOLE = Outer(
    (Inner(1.0), Inner(-math.inf, ("x", "y"))),
    {"t": (1, 2)},
    [[math.inf, 0.5]],
    "b",
    Path("run/onnx"),
    Inner(2.0),
    "batch",
    [1, "two"],
    True,
    {"n": 3},
)


@pytest.mark.parametrize("value", [WHOLE, Outer((), {}, [])])
def test_round_trip(value: Outer) -> None:
    assert from_json_values(Outer, json.loads(json.dumps(json_values(value), allow_nan=False))) == value


def test_nan_is_a_word() -> None:
    assert json_values(Inner(math.nan)) == {"value": "nan", "names": []}
    assert math.isnan(from_json_values(Inner, {"value": "nan", "names": []}).value)


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"inner": [{"value": 1.0}]},
        {"inner": {}},
        {"inner": [{"value": 1.0, "more": 2}]},
        {"inner": [{}]},
        {"table": {"t": [1, 2, 3]}},
        {"table": {"t": [1, "2"]}},
        {"rows": [["far"]]},
        {"flag": "yes"},
        {"size": 0.5},
        {"other": 3},
    ],
)
def test_other_values_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_json_values(Outer, {**json_values(WHOLE), **change})
    with pytest.raises((ValueError, TypeError)):
        from_json_values(Outer, [])
