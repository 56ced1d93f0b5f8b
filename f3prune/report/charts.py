"""Geometry of the page's charts; the template draws them. They take the page's width, and text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

LEVELS = 11
"""Colours of the ramp, classes ``q0`` to ``q10`` of the style sheet."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_GAP = 0.35
"""Width of the gap in a grid, in cells."""


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


@dataclass(frozen=True)
class Legend:
    """The ramp, what its values mean, and what coloured strokes mean; ``mark`` is empty where there are none."""

    scale: Scale
    what: str
    mark: str = ""


@dataclass(frozen=True)
class Grid:
    """Cells without labels, one unit wide and high each, in one path per colour whatever their number.

    Attributes:
        title: for screen readers.
        width: with the gap.
        rows: their number.
        shapes: level of the colour and path.
        tips: of the rows, shown under the pointer.
        strokes: path on top, through what is pruned.
        height: in pixels, the width then follows the page; ``None`` keeps cells square.
    """

    title: str
    width: float
    rows: int
    shapes: Sequence[tuple[int, str]]
    tips: Sequence[str] = ()
    strokes: str = ""
    height: float | None = None

    @classmethod
    def of(
        cls,
        values: Sequence[Sequence[float]],
        scale: Scale,
        title: str,
        tips: Sequence[str] = (),
        strokes: str = "",
        gap_before: int | None = None,
        height: float | None = None,
    ) -> Grid:
        """The grid of ``values``, ``[rows][columns]``, with column ``gap_before`` set apart."""
        paths: dict[int, list[str]] = {}
        for y, row in enumerate(values):
            x = 0
            while x < len(row):
                level, start = scale.level(row[x]), x
                while x < len(row) and scale.level(row[x]) == level and (x == start or x != gap_before):
                    x += 1
                left = start + (_GAP if gap_before is not None and start >= gap_before else 0)
                paths.setdefault(level, []).append(f"M{left:g} {y}h{x - start}v1h-{x - start}z")
        width = max(map(len, values), default=0) + (_GAP if gap_before is not None else 0)
        shapes = [(level, "".join(parts)) for level, parts in sorted(paths.items())]
        return cls(title, width, len(values), shapes, tips, strokes, height)


def strikes(rows: Collection[tuple[int, int, int]]) -> str:
    """Path through rows that are pruned: row, first column, column after the last."""
    return "".join(f"M{start} {row + 0.5}H{stop}" for row, start, stop in rows)


def slashes(cells: Collection[tuple[int, int]]) -> str:
    """Path through cells that are pruned: row and column."""
    return "".join(f"M{column + 0.2:g} {row + 0.8:g}l.6-.6" for row, column in cells)


def pooled(values: Sequence[Sequence[float]], columns: int) -> list[list[float]]:
    """Means of neighbouring columns, so that at most so many are left."""
    edges = bins(max(map(len, values), default=0), columns)
    return [[math.fsum(row[a:b]) / (b - a) for a, b in edges] for row in values]


def bins(count: int, most: int) -> list[tuple[int, int]]:
    """``count`` things in at most ``most`` ranges ``(first, last + 1)`` of about one size."""
    parts = min(count, most)
    return [(count * k // parts, count * (k + 1) // parts) for k in range(parts)]


@dataclass(frozen=True)
class Row:
    """One thing that was measured: its value, in the chart's unit and in words, and the ends of its interval.

    Its kind is its colour: ``dense``, ``pruned``, ``good``, ``bad``, ``gone`` or ``plain``.
    """

    label: str
    value: float
    shown: str
    low: float | None = None
    high: float | None = None
    kind: str = "plain"


@dataclass(frozen=True)
class RowChart:
    """Bars, or dots with whiskers, one row per thing.

    ``marks`` are vertical lines: position, meaning, and ``zero`` or ``limit`` for how it is drawn.
    """

    axis: Axis
    rows: Sequence[Row]
    bars: bool = False
    marks: Sequence[tuple[float, str, str]] = ()


@dataclass(frozen=True)
class Axis:
    """A range and its ticks; ``start`` above ``stop`` turns it round."""

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

    def percent(self, value: float) -> str:
        """Where a value lies, in percent of the width; at an end if outside."""
        return f"{100 * min(max(self.share(value), 0.0), 1.0):.2f}%"

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


def _power(power: int) -> str:
    """A power of ten in type: 10 with its exponent raised."""
    return "10" + str(power).translate(_RAISED) if power else "1"


@dataclass(frozen=True)
class Point:
    """A point with whiskers as far as its ranges; the tip is under the pointer, the label beside it."""

    x: float
    y: float
    tip: str
    label: str = ""
    kind: str = "plain"
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """Points in a row: ``x`` and ``y`` of each, a colour, and whether it is dashed."""

    points: Sequence[tuple[float, float]]
    kind: str
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """A chart with two axes, ``height`` pixels high; ``keys`` are kinds and their meanings."""

    title: str
    x: Axis
    y: Axis
    points: Sequence[Point]
    lines: Sequence[Line]
    keys: Sequence[tuple[str, str]]
    height: int = 280

    def down(self, value: float) -> str:
        """Where a value of the y axis lies, in pixels."""
        return f"{self.height * (1 - min(max(self.y.share(value), 0.0), 1.0)):.1f}"

    def path(self, line: Line) -> str:
        """A line's points, in percent of the width and the height."""
        return " ".join(f"{100 * self.x.share(a):.2f},{100 - 100 * self.y.share(b):.2f}" for a, b in line.points)
