"""A benchmark of some shapes makes the tables that those shapes can fill."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("shapes")


def measured(shapes: Any, *names: str) -> dict[str, Any]:
    fields = ("median", "q1", "q3", "speedup", "speedup_over_plain", "products_allow", "share_of_allowed")
    row = dict.fromkeys((*fields, "matmul_share"), 1.0)
    return {
        "shapes": {
            name: {
                "title": shapes.SHAPES[name].title,
                "rows": dict.fromkeys((*shapes.SHAPES[name].engines(), shapes.PLAIN), row),
            }
            for name in names
        }
    }


def test_one_shape_alone_has_tables(shapes: Any) -> None:
    for name, shape in shapes.SHAPES.items():
        found = shapes.tables(measured(shapes, name))
        assert set(found) == {"speed", "short", "summary"}
        assert found["speed"].count(f"| {shape.title} |") == len(shape.engines()) + 1


def test_all_shapes_have_the_line_of_frames_too(shapes: Any) -> None:
    found = shapes.tables(measured(shapes, *shapes.SHAPES))
    assert set(found) == {"speed", "short", "frames", "summary"}
    assert [line.split(" | ")[0] for line in found["frames"].splitlines()[2:-1]] == ["| 5", "| 9", "| 13", "| 25"]
