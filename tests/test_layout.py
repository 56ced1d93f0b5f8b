"""The house rules of size: a module that a reader can hold in mind, a package whose modules fit on a screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import f3prune

ROOT = Path(__file__).parents[1]
LINES = 500
MODULES = 15


def modules() -> list[Path]:
    """Every module of the repository; links into the same tree are not followed."""
    folders = ("f3prune", "calibration", "exporter", "engines", "zoo_training", "benchmarks", "examples", "tests")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def too_long(paths: Iterable[Path]) -> dict[str, int]:
    """Modules of more than ``LINES`` lines."""
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    return {name: count for name, count in lines.items() if count > LINES}


def too_full(paths: Iterable[Path]) -> dict[str, int]:
    """Packages of more than ``MODULES`` modules of their own; ``__init__.py`` and ``__main__.py`` do not count."""
    paths = list(paths)
    packages = {path.parent for path in paths if path.name == "__init__.py"}
    counts = Counter(path.parent for path in paths if path.parent in packages and not path.name.startswith("__"))
    return {str(package): count for package, count in counts.items() if count > MODULES}


def test_no_module_is_too_long() -> None:
    assert too_long(modules()) == {}


def test_no_package_is_too_full() -> None:
    found = modules()
    # Three packages of f3prune lie beside it.
    assert {Path(f3prune.__file__).parent, ROOT / "calibration", ROOT / "exporter"} <= {path.parent for path in found}
    assert too_full(found) == {}


def test_what_is_too_large_is_found(tmp_path: Path) -> None:
    for number in range(MODULES):
        (tmp_path / f"m{number}.py").write_text("x = 1\n" * LINES)
    (tmp_path / "__init__.py").touch()
    assert too_full(tmp_path.glob("*.py")) == {}
    assert too_long(tmp_path.glob("*.py")) == {}
    (tmp_path / "one_more.py").write_text("x = 1\n" * (LINES + 1))
    assert too_full(tmp_path.glob("*.py")) == {str(tmp_path): MODULES + 1}
    assert too_long(tmp_path.glob("*.py")) == {str(tmp_path / "one_more.py"): LINES + 1}
