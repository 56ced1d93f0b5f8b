"""Put what was measured into the pages: every benchmark's tables between its marks.

A benchmark ``NAME.py`` whose ``tables`` gives a block ``BLOCK`` owns what stands between ``<!-- NAME.BLOCK -->`` and
``<!-- /NAME.BLOCK -->``. The words around the tables are written by hand.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCS = ("performance.md", "benchmarks.md", "how-to/choose.md", "how-to/compare.md")
PAGES = (HERE.parent / "README.md", *(HERE.parent / "docs" / page for page in DOCS))
MODULES = {"full_size_14b": "full_size", "study": "study_page", "gpu_a": "gpu_tables"}
"""Benchmarks whose results have another name than the script that makes them."""
_BLOCK = re.compile(r"<!-- (?P<name>\w+)\.(?P<block>[\w-]+) -->\n.*?<!-- /(?P=name)\.(?P=block) -->", re.DOTALL)


def fill(text: str, results: Path) -> str:
    """The page with every table made anew.

    Raises:
        SystemExit: a benchmark has no result, or its result no such table.
    """
    known: dict[str, dict[str, str]] = {}

    def table(match: re.Match[str]) -> str:
        name, block = match["name"], match["block"]
        if name not in known:
            path = results / f"{name}.json"
            if not path.is_file():
                raise SystemExit(f"{path} is missing: run python benchmarks/{name}.py --json {path}")
            known[name] = importlib.import_module(MODULES.get(name, name)).tables(
                json.loads(path.read_text(encoding="utf-8"))
            )
        if block not in known[name]:
            raise SystemExit(f"benchmarks/{name}.py has no table {block!r}: it gives {', '.join(known[name])}")
        return f"<!-- {name}.{block} -->\n{known[name][block].strip()}\n<!-- /{name}.{block} -->"

    return _BLOCK.sub(table, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES)
    parser.add_argument("--check", action="store_true", help="only say whether the pages hold what was measured")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    for page in options.pages:
        before = page.read_text(encoding="utf-8")
        after = fill(before, options.results)
        if options.check and before != after:
            raise SystemExit(f"{page} differs from {options.results}: run python benchmarks/performance_page.py")
        if not options.check:
            page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
