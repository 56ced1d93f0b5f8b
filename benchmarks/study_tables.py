"""What the pages of the study have in common: names, tables, verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

KINDS = {
    "digits": "joint spatio-temporal attention (CogVideoX class)",
    "digits-latte": "alternating spatial and temporal blocks (Latte class)",
    "digits-animatediff": "UNet with motion modules (AnimateDiff class)",
    "digits-cogvideo": "autoregressive, a temporal channel beside the spatial one (CogVideo class)",
}
SCORES = {
    "aas": "AAS",
    "leave-one-out": "leave-one-out",
    "greedy": "greedy",
    "magnitude": "weight magnitude",
    "reversed": "AAS reversed",
    "random": "random",
}
SIGNIFICANT = 0.01
Row = Mapping[str, Any]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def number(value: Row, digits: int = 2, scale: float = 1.0) -> str:
    """A value with its interval."""
    text = f"{scale * value['value']:.{digits}f}"
    if value["interval"] is None:
        return text
    low, high = (scale * bound for bound in value["interval"])
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def change(row: Row, name: str, digits: int, scale: float = 1.0) -> str:
    """The pruned value, and what it is worse or better by if the interval says so."""
    verdict = row["difference"][name]["verdict"]
    mark = {"better": " ▲", "worse": " ▼", "undecided": ""}[verdict]
    return f"{scale * row['quality'][name]['value']:.{digits}f}{mark}"


def keeps_quality(row: Row) -> bool:
    """No interval says that fewer digits or motions are right, or that FVD is higher."""
    return not any(row["difference"][name]["verdict"] == "worse" for name in ("prompt_digit", "prompt_motion", "fvd"))
