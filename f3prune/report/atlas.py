"""The AAS atlas: heads over timesteps and frame pairs, a small picture per site, all on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from f3prune.report.charts import Grid, Legend, Scale, bins, pooled, slashes, strikes

COLUMNS = 40
"""Timesteps, or key frames, of a picture; more are pooled."""
FEW = 12
"""Sites up to which pictures are large."""


@dataclass(frozen=True)
class Panel:
    """One site's picture under its name, with how much of the site is pruned in words."""

    name: str
    grid: Grid
    lost: str


@dataclass(frozen=True)
class Panels:
    """A picture per site, of ``count`` timesteps, or frames, in as many columns or fewer."""

    count: int
    columns: int
    legend: Legend
    panels: Sequence[Panel]
    small: bool


@dataclass(frozen=True)
class Atlas:
    """Heads over timesteps, from ``ends`` to ``ends``; frame pairs, and their mean over all sites."""

    heads: Panels
    ends: tuple[str, str]
    pairs: Panels
    mean: Grid

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Atlas:
        """The section; ``data`` is the content of ``report.json``."""
        pairs, scale = _pairs(data)
        overall = _pooled_pairs(data["frame_mass"])
        mean = Grid.of(overall, scale, "mean over all sites", gap_before=len(overall[0]) - 1)
        first, last = data["timesteps"][0], data["timesteps"][-1]
        return cls(_heads(data), (f"{first:g}", f"{last:g}"), pairs, mean)


def _heads(data: Mapping[str, Any]) -> Panels:
    """``data["aas"]``: of every site ``[t][h]``, the share of attention that a head pays to other frames."""
    sites: Mapping[str, Sequence[Sequence[float]]] = data["aas"]
    count = len(data["timesteps"])
    ranges = bins(count, COLUMNS)
    pictures = {name: pooled([list(head) for head in zip(*rows, strict=True)], COLUMNS) for name, rows in sites.items()}
    scale = Scale.of([head for picture in pictures.values() for head in picture])
    panels = []
    for name, picture in pictures.items():
        struck = [
            (head, first, last)
            for stage in data["stages"]
            for first, last in [_columns(stage["steps"], ranges)]
            for head in (stage["sites"].get(name) or {"pruned_heads": ()})["pruned_heads"]
        ]
        lost = {head for head, _, _ in struck}
        tips = [
            f"{name}, head {head}: {math.fsum(row) / len(row):.3g} on average{', pruned' * (head in lost)}"
            for head, row in enumerate(picture)
        ]
        title = f"{name}: attention to other frames of {len(picture)} heads over {count} timesteps"
        height = min(18.0, (220 if len(pictures) <= FEW else 120) / len(picture)) * len(picture)
        grid = Grid.of(picture, scale, title, tips, strikes(struck), height=height)
        panels.append(Panel(name, grid, _lost_heads(data["stages"], name)))
    mark = "pruned" if any(panel.grid.strokes for panel in panels) else ""
    legend = Legend(scale, "share of attention", mark)
    return Panels(count, len(ranges), legend, panels, len(panels) > FEW)


def _columns(steps: Sequence[int], ranges: Sequence[tuple[int, int]]) -> tuple[int, int]:
    inside = [index for index, (first, last) in enumerate(ranges) if first < steps[1] and last > steps[0]]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def _lost_heads(stages: Sequence[Mapping[str, Any]], name: str) -> str:
    """What became of a site, in words: nothing, how many heads, and what took their place."""
    sites = [stage["sites"][name] for stage in stages if name in stage["sites"]]
    lost = [len(site["pruned_heads"]) for site in sites]
    if not any(lost):
        return ""
    if all(count == site["heads"] for count, site in zip(lost, sites, strict=True)):
        return ", then ".join(dict.fromkeys(site["replacement"] for site in sites))
    return f"{lost[0]} of {sites[0]['heads']} {sites[0]['replacement']}" if len(stages) == 1 else "partly pruned"


def _pairs(data: Mapping[str, Any]) -> tuple[Panels, Scale]:
    """``data["frame_mass_by_site"]``: of every site ``[f][f + 1]``, mean over timesteps and heads; the last is text."""
    mass: Mapping[str, Sequence[Sequence[float]]] = data["frame_mass_by_site"]
    pictures = {name: _pooled_pairs(rows) for name, rows in mass.items()}
    scale = Scale.of([row for picture in pictures.values() for row in picture], power=0.5, least=0.0)
    panels = []
    for name, picture in pictures.items():
        lost = _lost_pairs(data["stages"], name)
        # A pooled cell is many pairs, of which some are kept: the number beside the name has to do.
        strokes = slashes(sorted(lost)) if len(mass[name]) == len(picture) else ""
        tips = [f"{name}, query frame {index}: {_tip(row)}" for index, row in enumerate(picture)]
        title = f"{name}: where the attention of {len(mass[name])} frames goes"
        grid = Grid.of(picture, scale, title, tips, strokes, gap_before=len(picture[0]) - 1)
        panels.append(Panel(name, grid, f"{len(lost):,} pairs pruned" if lost else _lost_heads(data["stages"], name)))
    mark = "frame pair pruned" if any(panel.grid.strokes for panel in panels) else ""
    legend = Legend(scale, "share of a query frame's attention", mark)
    frames = len(data["frame_mass"])
    return Panels(frames, min(frames, COLUMNS), legend, panels, True), scale


def _pooled_pairs(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """At most ``COLUMNS`` frames each way: sums over key frames, means over query frames."""
    ranges = bins(len(rows), COLUMNS)
    keys = [[math.fsum(row[a:b]) for a, b in ranges] + [row[-1]] for row in rows]
    return [[math.fsum(keys[q][k] for q in range(a, b)) / (b - a) for k in range(len(ranges) + 1)] for a, b in ranges]


def _lost_pairs(stages: Sequence[Mapping[str, Any]], name: str) -> set[tuple[int, int]]:
    """Frame pairs that are pruned in any stage, query and key."""
    return {
        (query, key)
        for stage in stages
        for query, kept in enumerate(stage["sites"].get(name, {}).get("kept_pairs") or ())
        for key in range(stage["sites"][name]["frames"])
        if key not in kept
    }


def _tip(row: Sequence[float]) -> str:
    strongest = sorted(range(len(row) - 1), key=lambda index: -row[index])[:3]
    named = ", ".join(f"frame {index} {row[index]:.3g}" for index in strongest)
    return f"{named}; text {row[-1]:.3g}"
