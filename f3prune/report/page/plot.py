"""Charts with two axes: lines and points with whiskers. They take the page's width, and text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """A range and its ticks.

    Attributes:
        title: plain text.
        start, stop: ends; ``start`` above ``stop`` turns the axis round.
        logarithmic: powers of ten are equally far apart.
    """

    title: str
    start: float
    stop: float
    logarithmic: bool = False

    @classmethod
    def around(cls, title: str, values: Sequence[float], flipped: bool = False) -> Axis:
        """An axis with some room around values."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        ends = (low - room, high + room)
        return cls(title, *(reversed(ends) if flipped else ends))

    @classmethod
    def decades(cls, title: str, values: Sequence[float]) -> Axis:
        """A logarithmic axis from power to power of ten around positive values."""
        known = [math.log10(value) for value in values if value > 0]
        low, high = math.floor(min(known, default=-1.0)), math.ceil(max(known, default=0.0))
        return cls(title, 10.0**low, 10.0 ** max(high, low + 1), logarithmic=True)

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the start and 1 at the end."""
        if self.logarithmic:
            start, stop = math.log10(self.start), math.log10(self.stop)
            return (math.log10(value) - start) / (stop - start) if value > 0 else 0.0
        return (value - self.start) / ((self.stop - self.start) or 1.0)

    def ticks(self, about: int = 5) -> list[tuple[float, str]]:
        """Round values and how they are written."""
        if self.logarithmic:
            first, last = round(math.log10(self.start)), round(math.log10(self.stop))
            every = max(1, math.ceil((last - first) / about))
            return [(10.0**power, _power(power)) for power in range(first, last + 1, every)]
        low, high = sorted((self.start, self.stop))
        raw = (high - low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = min((unit * power for unit in (1, 2, 5, 10)), key=lambda unit: abs(unit - raw))
        first = math.ceil(low / step)
        digits = max(0, -math.floor(math.log10(step)))
        return [(k * step, f"{k * step:.{digits}f}") for k in range(first, math.floor(high / step) + 1)]


@dataclass(frozen=True)
class Point:
    """A point with whiskers.

    Attributes:
        x, y: where.
        tip: under the pointer, and for screen readers.
        label: beside it.
        kind: its colour and, for ``ring``, that it is hollow.
        x_range, y_range: intervals; ``None`` for none.
    """

    x: float
    y: float
    tip: str
    label: str = ""
    kind: str = "plain"
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """Points in a row, of one kind.

    Attributes:
        points: x and y.
        kind: its colour.
        dashed: how it is drawn.
    """

    points: Sequence[tuple[float, float]]
    kind: str = "plain"
    dashed: bool = False


def plot(x: Axis, y: Axis, points: Sequence[Point], lines: Sequence[Line], title: str, height: int = 280) -> str:
    """The chart.

    Args:
        x, y: axes.
        points: drawn over the lines.
        lines: drawn first.
        title: for screen readers.
        height: in pixels.
    """
    drawn = [_frame(x, y, height)]
    for line in lines:
        path = " ".join(f"{100 * x.share(a):.2f},{100 - 100 * y.share(b):.2f}" for a, b in line.points)
        drawn.append(
            f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="{height}">'
            f'<polyline class="line {line.kind}{" dashed" if line.dashed else ""}" points="{path}"/></svg>'
        )
    drawn.extend(_point(point, x, y, height) for point in points)
    return (
        f'<div class="plot"><p class="axis-title">{escape(y.title)}</p>'
        f'<svg class="area" height="{height}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(drawn)}</svg>"
        f'<p class="axis-title x">{escape(x.title)}</p></div>'
    )


def _power(power: int) -> str:
    """A power of ten in type: 10 with its exponent raised."""
    return "10" + str(power).translate(_RAISED) if power else "1"


def _frame(x: Axis, y: Axis, height: int) -> str:
    parts = [f'<line class="axis" x1="0" x2="100%" y1="{height}" y2="{height}"/>']
    for value, name in y.ticks():
        at = f"{height * (1 - y.share(value)):.1f}"
        parts.append(f'<line class="rule" x1="0" x2="100%" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="-8" y="{at}" dy="4" text-anchor="end">{name}</text>')
    for value, name in x.ticks():
        at = f"{100 * x.share(value):.2f}%"
        parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{height}" y2="{height + 5}"/>')
        parts.append(f'<text x="{at}" y="{height + 18}" text-anchor="middle">{name}</text>')
    return "".join(parts)


def _point(point: Point, x: Axis, y: Axis, height: int) -> str:
    def across(value: float) -> str:
        return f"{100 * min(max(x.share(value), 0.0), 1.0):.2f}%"

    def down(value: float) -> str:
        return f"{height * (1 - min(max(y.share(value), 0.0), 1.0)):.1f}"

    at, to = across(point.x), down(point.y)
    parts = [f"<g><title>{escape(point.tip)}</title>"]
    if point.x_range is not None:
        low, high = (across(value) for value in point.x_range)
        parts.append(f'<line class="whisker {point.kind}" x1="{low}" x2="{high}" y1="{to}" y2="{to}"/>')
    if point.y_range is not None:
        low, high = (down(value) for value in point.y_range)
        parts.append(f'<line class="whisker {point.kind}" x1="{at}" x2="{at}" y1="{low}" y2="{high}"/>')
    parts.append(f'<circle class="dot {point.kind}" cx="{at}" cy="{to}" r="4.5"/>')
    if point.label:
        near_end = x.share(point.x) > 0.85
        side, anchor = ("-9", "end") if near_end else ("9", "start")
        parts.append(f'<text x="{at}" y="{to}" dx="{side}" dy="-7" text-anchor="{anchor}">{escape(point.label)}</text>')
    return "".join([*parts, "</g>"])
