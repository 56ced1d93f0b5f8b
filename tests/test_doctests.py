"""The examples of docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "f3prune"
WITH_EXAMPLES = sorted(
    ".".join(("f3prune", *file.relative_to(ROOT).with_suffix("").parts))
    for folder in (ROOT, ROOT / "calibration", ROOT / "exporter", ROOT / "engines")
    for file in folder.rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


def test_there_are_some() -> None:
    assert len(WITH_EXAMPLES) >= 5


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_a_module(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0
