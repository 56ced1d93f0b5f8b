"""Put the rows of several calls of one visit into one file of results; a part that ran again replaces its rows."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from _visit import by_part, read_rows


def main() -> None:
    """Merge, or keep what is there and add to it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="+", help="rows.jsonl, in the order of the calls")
    parser.add_argument("--json", type=Path, required=True, help="results; added to where it exists")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if options.json.is_file():
        found = json.loads(options.json.read_text(encoding="utf-8"))
    for path in options.rows:
        found |= {part: rows for part, rows in by_part(read_rows(path)).items() if part != "parts"}
    options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
