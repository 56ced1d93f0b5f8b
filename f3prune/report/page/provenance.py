"""What the report was made from."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from f3prune.report.page.html import Markup, Section, table

_HASH = 64


def provenance(data: Mapping[str, Any]) -> Section:
    """The section."""
    rows = []
    for name, value in data["provenance"].items():
        shown = str(value)
        whole = len(shown) == _HASH and " " not in shown
        rows.append([name, Markup(f"<code>{escape(shown)}</code>") if whole else shown])
    return Section("provenance", "Provenance", f'<div class="facts">{table([], rows)}</div>')
