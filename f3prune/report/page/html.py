"""Pieces of HTML that every section is put together from. Text is escaped here, once."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


class Markup(str):
    """HTML that is escaped already; any other text is escaped when it is put in a table."""

    __slots__ = ()


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: ``id`` that the contents link to.
        title: plain text.
        body: HTML.
    """

    anchor: str
    title: str
    body: str

    def html(self) -> str:
        """The section with its heading."""
        return (
            f'<section id="{self.anchor}" aria-labelledby="{self.anchor}-title"><h2 id="{self.anchor}-title">'
            f"{escape(self.title)}</h2>{self.body}</section>"
        )


@dataclass(frozen=True)
class Media:
    """Files that are shown in place; ``None`` where the run has none.

    Attributes:
        pruned, dense: MP4 files.
        frames: PNG file, frames of both under each other.
        fps: frames per second of both videos.
    """

    pruned: bytes | None = None
    dense: bytes | None = None
    frames: bytes | None = None
    fps: float = 8.0


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """An HTML table whose first column names the rows; numbers are aligned right.

    Args:
        header: of the columns; may be empty.
        rows: ``None`` shows as a dash, numbers with four digits, ``Markup`` as it is, all else escaped.
        caption: plain text.
    """
    rows = [list(row) for row in rows]
    numeric = [all(_is_number(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    numeric += [False] * (len(header) - len(numeric))
    head = "".join(
        f'<th scope="col"{_right(right)}>{escape(name)}</th>' for name, right in zip(header, numeric, strict=False)
    )
    body = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>'
        + "".join(f"<td{_right(right)}>{_text(value)}</td>" for value, right in zip(row[1:], numeric[1:], strict=False))
        + "</tr>"
        for row in rows
    )
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    name = escape(caption or (header[0] if header else "values"), quote=True)
    return scroll(
        f"<table>{above}{f'<thead><tr>{head}</tr></thead>' if header else ''}<tbody>{body}</tbody></table>", name
    )


def scroll(content: str, name: str) -> str:
    """Content that may be wider than the page, in a box that scrolls by keyboard too; ``name`` is escaped already."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{content}</div>'


def details(summary: str, content: str, shown: bool = False) -> str:
    """Content behind a line that opens it; works without a script."""
    return f"<details{' open' if shown else ''}><summary>{escape(summary)}</summary>{content}</details>"


def figure(content: str, caption: str, kind: str = "") -> str:
    """A figure with a caption of plain text."""
    name = f' class="{kind}"' if kind else ""
    return f"<figure{name}>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{escape(text)}</p>"


def breakable(name: str) -> Markup:
    """A module's name, which may be broken after its dots and underscores."""
    return Markup(f"<code>{escape(name).replace('.', '.<wbr>').replace('_', '_<wbr>')}</code>")


def chip(text: str, kind: str) -> Markup:
    """A short word in a coloured frame: ``good``, ``bad``, ``gone`` or ``plain``."""
    return Markup(f'<span class="chip {kind}">{escape(text)}</span>')


def number(value: float | None, unit: str = "") -> str:
    """Four significant digits, with the unit after them."""
    if value is None:
        return "–"
    shown = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{shown.replace('-', '−', 1)} {unit}".rstrip()


def interval(value: float | None, bounds: Sequence[float] | None, unit: str = "") -> str:
    """A value with its interval in brackets."""
    if value is None or bounds is None:
        return number(value, unit)
    return f"{number(value, unit)} [{number(bounds[0])}, {number(bounds[1])}]"


def uri(content: bytes, kind: str) -> str:
    """A ``data:`` address of a file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def finite(value: Any) -> float | None:
    """A number of a JSON file, where ``"inf"`` and the like are text; ``None`` unless finite."""
    found = None if value is None else float(value)
    return found if found is not None and math.isfinite(found) else None


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _right(right: bool) -> str:
    return ' class="n"' if right else ""


def _text(value: Any) -> str:
    if isinstance(value, Markup):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if value is None or isinstance(value, float):
        return escape(number(value))
    return escape(str(value))
