"""What benchmarks import of f3prune exists: most of them run too long for a test to run them."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Every ``(module, name)`` that a file takes from f3prune, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "f3prune":
            for alias in node.names:
                yield node.module, alias.name


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.stem)
def test_every_name_is_there(path: Path) -> None:
    for module, name in imported(path):
        found = importlib.import_module(module)
        if not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")


def test_every_script_is_in_the_table() -> None:
    table = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", table))
    scripts = {path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.rglob("*.py")}
    parts = {name for name in scripts if name.startswith("gpu/_")}
    assert scripts - parts == named
