"""Quality with intervals: dense, pruned and their difference by every metric of ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f3prune.report.page.html import Section, chip, figure, finite, interval, number, paragraph, table
from f3prune.report.page.rows import Row, dots

_VERDICTS = {"better": "good", "worse": "bad", "undecided": "plain"}
_DIRECTIONS = {"higher": " ↑", "lower": " ↓"}
_KINDS = {"paired": "pruned to dense", "each": "each by itself", "distance": "real videos"}


def quality(data: Mapping[str, Any]) -> Section | None:
    """The section, if the run was evaluated."""
    found = data.get("quality")
    if not found:
        return None
    metrics = found["metrics"]
    difference = found.get("difference") or {}
    body = paragraph(_about(found), "soft") + _figure(metrics, difference, found["confidence"])
    rows = []
    for name, metric in metrics.items():
        sides = [found.get(side, {}).get(name) for side in ("dense", "pruned")]
        change = difference.get(name)
        verdict = chip(str(change["verdict"]), _VERDICTS.get(change["verdict"], "plain")) if change else None
        rows.append(
            [
                title_of(metric) + _DIRECTIONS.get(str(metric.get("better")), ""),
                _KINDS.get(metric["kind"], metric["kind"]),
                *(_shown(side) for side in sides),
                _shown(change),
                verdict,
            ]
        )
    header = ["metric", "compares", "dense", "pruned", "difference", "verdict"]
    return Section("quality", "Quality", body + table(header, rows))


def title_of(metric: Mapping[str, Any]) -> str:
    """Title of a metric with its unit."""
    return f"{metric['title']}, {metric['unit']}" if metric.get("unit") else str(metric["title"])


def _about(found: Mapping[str, Any]) -> str:
    dataset = found["dataset"]
    text = (
        f"{dataset['samples']:,} videos of {dataset['prompts']:,} prompts ({dataset['name']}), the same prompts and "
        f"seeds for dense and pruned."
    )
    if dataset.get("real"):
        text += f" {dataset['real']:,} real videos to compare with."
    return text + (
        f" Brackets are {100 * found['confidence']:g} % intervals of {found['resamples']:,} bootstrap resamples; a "
        f"verdict is given where the interval of the difference leaves zero out. ↑: more is "
        f"better, ↓: less is."
    )


def _shown(value: Mapping[str, Any] | None) -> str:
    return "–" if value is None else interval(finite(value["value"]), value.get("interval"))


def _figure(metrics: Mapping[str, Any], difference: Mapping[str, Any], confidence: float) -> str:
    """Every difference on a scale of its own, turned so that better lies at the right."""
    charts = []
    for name, change in difference.items():
        value, metric = finite(change["value"]), metrics[name]
        if value is None:
            continue
        sign = -1.0 if metric.get("better") == "lower" else 1.0
        low, high = sorted(sign * bound for bound in change["interval"]) if change.get("interval") else (None, None)
        reach = max(abs(value), abs(low or 0.0), abs(high or 0.0)) * 1.15 or 1.0
        row = Row(
            title_of(metric),
            sign * value,
            f"{'+' if value > 0 else ''}{number(value)}",
            low,
            high,
            _VERDICTS.get(change["verdict"], "plain"),
        )
        charts.append(dots([row], "pruned minus dense", -reach, reach, [(0.0, "", "zero")]))
    if not charts:
        return ""
    ends = "<span>← worse</span><span>better →</span>"
    ends = f'<div class="row axis"><span></span><span class="ends">{ends}</span><span></span></div>'
    caption = (
        f"Pruned minus dense with {100 * confidence:g} % intervals, every metric on a scale of its own around no "
        f"difference; turned so that better lies at the right, or more where neither is better."
    )
    return figure(ends + "".join(charts), caption)
