"""The sweep: speed-up beside quality of every configuration, and which of them no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from f3prune.report.page.html import Section, chip, details, figure, finite, interval, paragraph, table
from f3prune.report.page.plot import Axis, Line, Point, plot
from f3prune.report.page.quality import title_of

SHOWN = 12
"""Rows of the table that are shown without being asked for."""


def sweep(data: Mapping[str, Any]) -> Section | None:
    """The section, if configurations were swept."""
    found = data.get("sweep")
    if not found or not found["points"]:
        return None
    points = sorted(found["points"], key=lambda point: (not point["pareto"], -point["speedup"]))
    front = sum(bool(point["pareto"]) for point in points)
    metric = found["metrics"][found["quality"]]
    text = (
        f"Configurations that were pruned, built and timed: {len(points)}. On the Pareto front, where none of the "
        f"others is both faster and better by {title_of(metric)}: {front}."
    )
    return Section("sweep", "Sweep", paragraph(text, "soft") + _figure(found, points, metric) + _tables(found, points))


def _figure(found: Mapping[str, Any], points: Sequence[Mapping[str, Any]], metric: Mapping[str, Any]) -> str:
    name, dense = found["quality"], found["dense"]["seconds"]["median"]
    drawn, xs, ys = [], [1.0], []
    for index, point in enumerate(points, start=1):
        quality = point["quality"].get(name)
        value = None if quality is None else finite(quality["value"])
        if quality is None or value is None:
            continue
        across = (dense / point["seconds"]["quartile_3"], dense / point["seconds"]["quartile_1"])
        up = tuple(quality["interval"]) if quality.get("interval") else None
        xs += [point["speedup"], *across]
        ys += [value, *(up or ())]
        tip = f"{index}: {_title(point['config'])}: {point['speedup']:.2f}×, {title_of(metric)} {value:.4g}"
        label, kind = (str(index), "pruned") if point["pareto"] else ("", "plain")
        drawn.append(Point(point["speedup"], value, tip, label, kind, across, up))
    if not drawn:
        return ""
    own = found["dense"].get("quality", {}).get(name)
    reference = [] if own is None else [value for value in [finite(own["value"])] if value is not None]
    flipped = metric.get("better") == "lower"
    x = Axis.around("speed-up over dense", xs)
    y = Axis.around(f"{title_of(metric)}{', turned: better is up' * flipped}", [*ys, *reference], flipped)
    corners = sorted((point.x, point.y) for point in drawn if point.kind == "pruned")
    drawn.sort(key=lambda point: point.kind == "pruned")
    drawn += [Point(1.0, value, f"dense: {value:.4g}", "dense", "dense") for value in reference]
    chart = plot(x, y, drawn, [Line(corners, "pruned", dashed=True)], "quality over speed-up of every configuration")
    keys = (
        '<div class="keys"><span><span class="key pruned"></span>Pareto front</span>'
        '<span><span class="key plain"></span>other configurations</span></div>'
    )
    caption = "Whiskers: intervals of the quality, quartiles of the time. Numbers are those of the table."
    return figure(keys + chart, caption)


def _tables(found: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> str:
    metrics = found["metrics"]
    header = [
        "#",
        "configuration",
        "front",
        "speed-up",
        "ms",
        *(title_of(metric) for metric in metrics.values()),
        "pruned",
        "masks",
    ]
    rows = []
    for index, point in enumerate(points, start=1):
        values = [point["quality"].get(name) for name in metrics]
        rows.append(
            [
                str(index),
                _title(point["config"]),
                chip("front", "good") if point["pareto"] else "",
                f"{point['speedup']:.2f}×",
                round(1e3 * point["seconds"]["median"], 2),
                *(
                    "–" if value is None else interval(finite(value["value"]), value.get("interval"))
                    for value in values
                ),
                _counts(point["pruned"]),
                str(point["masks"]),
            ]
        )
    shown = table(header, rows[:SHOWN])
    rest = rows[SHOWN:]
    return shown + (details(f"{len(rest)} more configurations", table(header, rest)) if rest else "")


def _title(config: Mapping[str, Any]) -> str:
    parts = [f"α {config['alpha']:g}", str(config["granularity"]), str(config["mode"])]
    if config["aggregate"] != "timesteps":
        parts.append(f"over {config['aggregate']}")
    if config.get("stages", 1) != 1:
        parts.append(f"{config['stages']} stages")
    if config.get("score"):
        parts.append(f"by {config['score']}")
    return ", ".join(parts)


def _counts(pruned: Mapping[str, int]) -> str:
    names = (("sites", "sites"), ("heads", "heads"), ("pairs", "pairs"))
    found = [f"{pruned[f'{key}_pruned']} of {pruned[key]} {name}" for key, name in names if pruned[f"{key}_pruned"]]
    return ", ".join(found) or "nothing"
