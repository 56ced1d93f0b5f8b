"""Figures as inline SVG: no library, no network, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape

_HUE, _GONE = "#2458b8", "#c2410c"
"""Colours for viewers that do not apply the page's style to a figure."""


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    marked: Sequence[Collection[int]] = (),
    title: str = "",
    unit: str = "",
) -> str:
    """Cells coloured by value, from the least (pale) to the greatest (full); marked cells are crossed out.

    Args:
        rows, columns: labels.
        values: ``[rows][columns]``.
        marked: for each row, the columns that are crossed out.
        title: what the figure shows, for screen readers.
        unit: appended to a cell's tooltip.
    """
    longest = max((len(row) for row in rows), default=0)
    height = 18 if len(rows) <= 40 else 12
    width = max(10, min(34, 640 // max(len(columns), 1)))
    left, top = 12 + round(6.6 * longest), 20
    known = [value for line in values for value in line]
    least, most = min(known, default=0.0), max(known, default=0.0)
    span = (most - least) or 1.0
    right = max(left + width * len(columns), left + 220)
    parts = [_open(right + 4, top + height * len(rows) + 26, title)]
    every = math.ceil(22 / width)
    for index, label in enumerate(columns):
        if index % every == 0:
            parts.append(_text(left + width * (index + 0.5), top - 6, label, "middle"))
    for r, row in enumerate(rows):
        y = top + height * r
        parts.append(_text(left - 6, y + height * 0.72, row, "end"))
        for c, column in enumerate(columns):
            value = values[r][c]
            x = left + width * c
            gone = bool(marked) and c in marked[r]
            tip = f"{row} · {column}: {value:.4g}{unit}{' · pruned' if gone else ''}"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{width - 1}" height="{height - 1}" class="cell" '
                f'fill="{_HUE}" fill-opacity="{_opacity((value - least) / span)}"><title>{escape(tip)}</title></rect>'
            )
            if gone:
                parts.append(
                    f'<path d="M{x + 2} {y + 2}L{x + width - 3} {y + height - 3}M{x + width - 3} {y + 2}'
                    f'L{x + 2} {y + height - 3}" class="gone" stroke="{_GONE}" stroke-width="1.5" fill="none"/>'
                )
    y = top + height * len(rows) + 8
    for step in range(8):
        parts.append(
            f'<rect x="{left + 56 + 12 * step}" y="{y}" width="12" height="11" class="cell" fill="{_HUE}" '
            f'fill-opacity="{_opacity(step / 7)}"/>'
        )
    parts.append(_text(left + 50, y + 10, f"{least:.3g}{unit}", "end"))
    parts.append(_text(left + 158, y + 10, f"{most:.3g}{unit}", "start"))
    return "".join([*parts, "</svg>"])


def bars(rows: Sequence[tuple[str, float, float, float]], title: str, unit: str) -> str:
    """Horizontal bars: label, value, and the low and high end of its spread."""
    longest = max((len(row[0]) for row in rows), default=0)
    left, full, height = 12 + round(6.6 * longest), 420, 24
    most = max((row[3] for row in rows), default=0.0) or 1.0
    parts = [_open(left + full + 130, height * len(rows) + 8, title)]
    for index, (label, value, low, high) in enumerate(rows):
        y = 4 + height * index
        x_low, x_high = left + full * low / most, left + full * high / most
        middle = y + height / 2 - 1
        parts.append(_text(left - 6, y + 15, label, "end"))
        parts.append(
            f'<rect x="{left}" y="{y + 3}" width="{full * value / most:.1f}" height="{height - 8}" '
            f'class="bar" fill="{_HUE}"/>'
            f'<path d="M{x_low:.1f} {middle}H{x_high:.1f}M{x_low:.1f} {middle - 4}v8M{x_high:.1f} {middle - 4}v8" '
            f'class="spread" stroke="#1d2430" fill="none"/>'
        )
        parts.append(_text(left + full * max(value, high) / most + 8, y + 15, f"{value:.4g} {unit}", "start"))
    return "".join([*parts, "</svg>"])


def _open(width: float, height: float, title: str) -> str:
    name = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{name}" '
        f'font-size="11" font-family="system-ui,sans-serif" fill="#5c6676">'
    )


def _opacity(share: float) -> str:
    """Opacity of a cell whose value is this far between the least and the greatest."""
    return f"{0.06 + 0.94 * share:.3f}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
