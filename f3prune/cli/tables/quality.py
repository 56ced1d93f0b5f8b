"""Tables of evaluate and sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def evaluation_table(data: Mapping[str, Any]) -> Table:
    """A row per metric: dense, pruned, their difference with its interval, and the verdict."""
    dataset = data["dataset"]
    table = Table(
        title=f"{dataset['name']}: {dataset['samples']} videos of {dataset['prompts']} prompts, "
        f"{data['confidence']:.0%} intervals"
    )
    for name in ("metric", "dense", "pruned", "pruned - dense", "verdict"):
        table.add_column(name, justify="left" if name in {"metric", "verdict"} else "right")
    for name, info in data["metrics"].items():
        unit = f" ({info['unit']})" if info["unit"] else ""
        difference = data["difference"].get(name)
        table.add_row(
            f"{info['title']}{unit}",
            _shown(data["dense"].get(name)),
            _shown(data["pruned"].get(name)),
            _shown(difference),
            "" if difference is None else difference["verdict"],
        )
    return table


def sweep_table(data: Mapping[str, Any]) -> Table:
    """A row per point, the fastest first; a star marks the Pareto front."""
    metric = data["quality"]
    info = data["metrics"][metric]
    unit = f" ({info['unit']})" if info["unit"] else ""
    table = Table(title=f"{len(data['points'])} points, {data['samples']} videos each; dense engine 1.00x")
    for name in ("", "α", "unit", "mode", "aggregate", "score", "stages", "pruned", "speed", f"{info['title']}{unit}"):
        table.add_column(name, justify="right" if name in {"α", "stages", "speed"} else "left")
    for point in sorted(data["points"], key=lambda point: -point["speedup"]):
        config, pruned = point["config"], point["pruned"]
        kind = {"layer": "sites", "head": "heads", "frame-pair": "pairs"}[config["granularity"]]
        table.add_row(
            "*" if point["pareto"] else "",
            f"{config['alpha']:g}",
            config["granularity"],
            config["mode"],
            config["aggregate"],
            config["score"],
            str(config["stages"]),
            f"{pruned[f'{kind}_pruned']} of {pruned[kind]} {kind}",
            f"{point['speedup']:.2f}x",
            _shown(point["quality"][metric]),
        )
    return table


def _shown(value: Mapping[str, Any] | None) -> str:
    if value is None or value["value"] is None:
        return ""
    if value["interval"] is None:
        return f"{value['value']:.4g}"
    low, high = value["interval"]
    return f"{value['value']:.4g} [{low:.4g}, {high:.4g}]"
