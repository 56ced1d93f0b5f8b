"""Grids of coloured cells: small inline SVG of a few paths, whatever the number of cells, in the page's own ramp."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

LEVELS = 11
"""Colours of the ramp, classes ``q0`` to ``q10`` of the style."""


@dataclass(frozen=True)
class Scale:
    """From value to colour.

    Attributes:
        least, most: ends of the ramp.
        power: below 1 spreads small values, 0.5 is a square root.
    """

    least: float
    most: float
    power: float = 1.0

    @classmethod
    def of(cls, values: Sequence[Sequence[float]], power: float = 1.0, least: float | None = None) -> Scale:
        """The scale that the values fill."""
        known = [value for line in values for value in line if math.isfinite(value)]
        return cls(min(known, default=0.0) if least is None else least, max(known, default=1.0), power)

    def level(self, value: float) -> int:
        """Index of the colour."""
        span = self.most - self.least
        share = (value - self.least) / span if span > 0 and math.isfinite(value) else 0.0
        return round((LEVELS - 1) * min(max(share, 0.0), 1.0) ** self.power)

    def value(self, share: float) -> float:
        """The value at this share of the ramp: what ``level`` undoes."""
        return float(self.least + (self.most - self.least) * share ** (1 / self.power))


def grid(
    values: Sequence[Sequence[float]],
    scale: Scale,
    title: str,
    tips: Sequence[str] = (),
    overlay: str = "",
    gap_before: int | None = None,
    stretch: float | None = None,
) -> str:
    """Cells without labels, one unit wide and high each.

    Args:
        values: ``[rows][columns]``.
        scale: of the colours.
        title: for screen readers.
        tips: of the rows, shown under the pointer.
        overlay: SVG on top, in cells as units.
        gap_before: column that is set apart.
        stretch: height of a row in pixels; the width then follows the page. ``None`` keeps cells square.
    """
    columns, rows = max((len(row) for row in values), default=0), len(values)
    width = columns + (0.35 if gap_before is not None else 0)
    paths: dict[int, list[str]] = {}
    for y, row in enumerate(values):
        x = 0
        while x < len(row):
            level, start = scale.level(row[x]), x
            while x < len(row) and scale.level(row[x]) == level and (x == start or x != gap_before):
                x += 1
            left = start + (0.35 if gap_before is not None and start >= gap_before else 0)
            paths.setdefault(level, []).append(f"M{left:g} {y}h{x - start}v1h-{x - start}z")
    shapes = "".join(f'<path class="q{level}" d="{"".join(parts)}"/>' for level, parts in sorted(paths.items()))
    hints = "".join(
        f'<rect class="hint" y="{y}" width="{width:g}" height="1"><title>{escape(tip)}</title></rect>'
        for y, tip in enumerate(tips)
    )
    fit = "" if stretch is None else f' height="{rows * stretch:g}" preserveAspectRatio="none"'
    return (
        f'<svg class="cells" viewBox="0 0 {width:g} {rows}"{fit} role="img" aria-label="{escape(title, quote=True)}">'
        f"{shapes}{hints}{overlay}</svg>"
    )


def strikes(rows: Collection[tuple[int, int, int]]) -> str:
    """Lines through rows that are pruned: row, first column, column after the last."""
    lines = "".join(f"M{start} {row + 0.5}H{stop}" for row, start, stop in rows)
    return f'<path class="gone" d="{lines}"/>' if lines else ""


def slashes(cells: Collection[tuple[int, int]]) -> str:
    """Strokes through cells that are pruned: row and column."""
    lines = "".join(f"M{column + 0.2:g} {row + 0.8:g}l.6-.6" for row, column in cells)
    return f'<path class="gone" d="{lines}"/>' if lines else ""


def legend(scale: Scale, what: str, marks: str = "") -> str:
    """The ramp with its values; ``marks`` says in plain text what the coloured strokes mean."""
    ramp = "".join(f'<path class="q{level}" d="M{level} 0h1v1h-1z"/>' for level in range(LEVELS))
    ends = [f"{scale.value(share):.3g}" for share in (0.0, 0.5, 1.0)]
    gone = f'<span class="mark">{escape(marks)}</span>' if marks else ""
    return (
        f'<div class="legend"><span>{escape(what)}</span><span class="ramp">'
        f'<svg class="cells" viewBox="0 0 {LEVELS} 1" height="10" preserveAspectRatio="none" aria-hidden="true">'
        f"{ramp}</svg>"
        f"<span>{ends[0]}</span><span>{ends[1]}</span><span>{ends[2]}</span></span>{gone}</div>"
    )


def pooled(values: Sequence[Sequence[float]], columns: int) -> list[list[float]]:
    """Means of neighbouring columns, so that at most so many are left."""
    edges = bins(max((len(row) for row in values), default=0), columns)
    return [[math.fsum(row[a:b]) / (b - a) for a, b in edges] for row in values]


def bins(count: int, most: int) -> list[tuple[int, int]]:
    """``count`` things in at most ``most`` ranges ``(first, last + 1)`` of about one size."""
    parts = min(count, most)
    return [(count * k // parts, count * (k + 1) // parts) for k in range(parts)]
