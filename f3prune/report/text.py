"""How numbers and tables are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chip:
    """A short word in a frame, coloured as its kind: ``good``, ``bad``, ``gone`` or ``plain``."""

    text: str
    kind: str


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows; ``numeric`` columns are aligned right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Chip]]
    numeric: Sequence[bool]

    @classmethod
    def of(cls, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
        """A table of values: ``None`` shows as a dash, floats with four digits; columns of numbers are numeric."""
        rows = list(rows)
        columns = zip(*rows, strict=True)
        numeric = [all(value is None or isinstance(value, int | float) for value in column) for column in columns]
        return cls(header, [[_text(value) for value in row] for row in rows], numeric or [False] * len(header))


def number(value: float | None, unit: str = "") -> str:
    """Four significant digits, with the unit after them."""
    if value is None:
        return "–"
    shown = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{shown.replace('-', '−', 1)} {unit}".rstrip()


def interval(value: float | None, bounds: Sequence[float] | None) -> str:
    """A value with its interval in brackets."""
    if value is None or bounds is None:
        return number(value)
    return f"{number(value)} [{number(bounds[0])}, {number(bounds[1])}]"


def finite(value: Any) -> float | None:
    """A number of a JSON file, where ``"inf"`` and the like are text; ``None`` unless finite."""
    found = None if value is None else float(value)
    return found if found is not None and math.isfinite(found) else None


def _text(value: Any) -> str | Chip:
    if isinstance(value, Chip):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if value is None or isinstance(value, float) else str(value)
