"""Charts of one row per thing: bars and dots with whiskers. They take the page's width, and text keeps its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Row:
    """One thing that was measured.

    Attributes:
        label: plain text.
        value: position, in the chart's unit.
        shown: the value in words.
        low, high: ends of its interval; ``None`` for none.
        kind: ``dense``, ``pruned``, ``good``, ``bad``, ``gone`` or ``plain``: its colour.
    """

    label: str
    value: float
    shown: str
    low: float | None = None
    high: float | None = None
    kind: str = "plain"


def bars(rows: Sequence[Row], title: str) -> str:
    """Bars from zero, with intervals."""
    most = max((max(row.value, row.high or 0.0) for row in rows), default=0.0) or 1.0
    return _rows([(row, _bar(row, most)) for row in rows], title)


def dots(
    rows: Sequence[Row], title: str, start: float, stop: float, marks: Sequence[tuple[float, str, str]] = ()
) -> str:
    """Dots with whiskers between ``start`` and ``stop``.

    Args:
        rows: top to bottom.
        title: for screen readers.
        start, stop: of the axis.
        marks: vertical lines: position, meaning, and ``zero`` or ``limit`` for how it is drawn.
    """
    lines = "".join(
        f'<line class="{kind}" x1="{_at(at, start, stop)}" x2="{_at(at, start, stop)}" y1="0" y2="100%"/>'
        for at, _, kind in marks
    )
    chart = _rows([(row, lines + _dot(row, start, stop)) for row in rows], title)
    names = "".join(
        f'<text x="{_at(at, start, stop)}" y="12" text-anchor="{_anchor(at, start, stop)}">{escape(meaning)}</text>'
        for at, meaning, _ in marks
        if meaning
    )
    if not names:
        return chart
    return chart + f'<div class="row axis"><span></span><svg class="track" height="18">{names}</svg><span></span></div>'


def _rows(rows: Sequence[tuple[Row, str]], title: str) -> str:
    return "".join(
        f'<div class="row"><span class="label">{escape(row.label)}</span><svg class="track" height="26" role="img" '
        f'aria-label="{escape(f"{title}, {row.label}: {row.shown}", quote=True)}">{drawn}</svg>'
        f'<span class="value">{escape(row.shown)}</span></div>'
        for row, drawn in rows
    )


def _bar(row: Row, most: float) -> str:
    bar = f'<rect class="bar {row.kind}" y="5" width="{_at(row.value, 0, most)}" height="16" rx="2"/>'
    return bar + _whisker(row, 0, most, "spread")


def _dot(row: Row, start: float, stop: float) -> str:
    dot = f'<circle class="dot {row.kind}" cx="{_at(row.value, start, stop)}" cy="13" r="5"/>'
    return _whisker(row, start, stop, f"whisker {row.kind}") + dot


def _whisker(row: Row, start: float, stop: float, kind: str) -> str:
    if row.low is None or row.high is None:
        return ""
    low, high = _at(row.low, start, stop), _at(row.high, start, stop)
    return (
        f'<g class="{kind}"><line x1="{low}" x2="{high}" y1="13" y2="13"/><line x1="{low}" x2="{low}" y1="9" y2="17"/>'
        f'<line x1="{high}" x2="{high}" y1="9" y2="17"/></g>'
    )


def _at(value: float, start: float, stop: float) -> str:
    return f"{100 * min(max((value - start) / ((stop - start) or 1.0), 0.0), 1.0):.2f}%"


def _anchor(value: float, start: float, stop: float) -> str:
    share = (value - start) / ((stop - start) or 1.0)
    return "end" if share > 0.75 else "start" if share < 0.25 else "middle"
