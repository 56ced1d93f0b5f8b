"""The AAS atlas: heads over timesteps and frame pairs, a small picture per site, all on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from f3prune.report.page.cells import Scale, bins, grid, legend, pooled, slashes, strikes
from f3prune.report.page.html import Section, breakable, chip, details, figure, paragraph

COLUMNS = 40
"""Timesteps, or key frames, of a picture; more are pooled."""
FEW = 12
"""Sites up to which pictures are large."""
SHOWN = 24
"""Sites that are shown without being asked for."""


def atlas(data: Mapping[str, Any]) -> Section:
    """The section."""
    return Section("atlas", "AAS atlas", _heads(data) + _pairs(data))


def _heads(data: Mapping[str, Any]) -> str:
    """``data["aas"]``: of every site ``[t][h]``, the share of attention that a head pays to other frames."""
    sites: Mapping[str, Sequence[Sequence[float]]] = data["aas"]
    timesteps = data["timesteps"]
    ranges = bins(len(timesteps), COLUMNS)
    pictures = {name: pooled([list(head) for head in zip(*rows, strict=True)], COLUMNS) for name, rows in sites.items()}
    scale = Scale.of([head for picture in pictures.values() for head in picture])
    ends = "".join(f"<span>{timesteps[place]:g}</span>" for place in (0, -1))
    ticks = f'<div class="ends tick" aria-hidden="true">{ends}</div>'
    panels, marked = [], False
    for name, picture in pictures.items():
        struck = [
            (head, first, last)
            for stage in data["stages"]
            for first, last in [_columns(stage["steps"], ranges)]
            for head in (stage["sites"].get(name) or {"pruned_heads": ()})["pruned_heads"]
        ]
        marked = marked or bool(struck)
        lost = {head for head, _, _ in struck}
        tips = [
            f"{name}, head {head}: {math.fsum(row) / len(row):.3g} on average{', pruned' * (head in lost)}"
            for head, row in enumerate(picture)
        ]
        title = f"{name}: attention to other frames of {len(picture)} heads over {len(timesteps)} timesteps"
        height = min(18.0, (220 if len(pictures) <= FEW else 120) / len(picture))
        panels.append(
            _panel(
                name,
                grid(picture, scale, title, tips, strikes(struck), stretch=height) + ticks,
                _lost_heads(data["stages"], name),
            )
        )
    text = (
        f"Share of attention that each head pays to other frames. A picture per site: heads from 0 at the top, "
        f"timesteps in the order of generation, from {timesteps[0]:g} at the left to {timesteps[-1]:g} at the right."
    )
    if len(ranges) < len(timesteps):
        text += f" {len(timesteps)} timesteps are pooled into {len(ranges)} columns."
    return (
        "<h3>Sites and heads over timesteps</h3>"
        + paragraph(text, "soft")
        + legend(scale, "share of attention", "pruned" if marked else "")
        + _many(panels, "small" if len(panels) > FEW else "")
    )


def _columns(steps: Sequence[int], ranges: Sequence[tuple[int, int]]) -> tuple[int, int]:
    inside = [index for index, (first, last) in enumerate(ranges) if first < steps[1] and last > steps[0]]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def _lost_heads(stages: Sequence[Mapping[str, Any]], name: str) -> str:
    """How much of a site is pruned, in words: nothing, some heads, all of it."""
    sites = [stage["sites"][name] for stage in stages if name in stage["sites"]]
    lost = [len(site["pruned_heads"]) for site in sites]
    if not any(lost):
        return ""
    if all(count == site["heads"] for count, site in zip(lost, sites, strict=True)):
        return "pruned"
    return f"{lost[0]} of {sites[0]['heads']} pruned" if len(stages) == 1 else "partly pruned"


def _panel(name: str, picture: str, lost: str) -> str:
    """One site's picture under its name."""
    mark = chip(lost, "gone") if lost else ""
    return f'<figure class="panel"><figcaption>{breakable(name)}{mark}</figcaption>{picture}</figure>'


def _many(panels: Sequence[str], kind: str = "", before: str = "") -> str:
    first, rest = panels[:SHOWN], panels[SHOWN:]
    shown = f'<div class="panels {kind}">{before}{"".join(first)}</div>'
    if rest:
        shown += details(f"{len(rest)} more sites", f'<div class="panels {kind}">{"".join(rest)}</div>')
    return shown


def _pairs(data: Mapping[str, Any]) -> str:
    """``data["frame_mass_by_site"]``: of every site ``[f][f + 1]``, mean over timesteps and heads; the last is text."""
    mass: Mapping[str, Sequence[Sequence[float]]] = data["frame_mass_by_site"]
    pictures = {name: _pooled_pairs(rows) for name, rows in mass.items()}
    scale = Scale.of([row for picture in pictures.values() for row in picture], power=0.5, least=0.0)
    panels, slashed = [], False
    for name, picture in pictures.items():
        frames = len(mass[name])
        lost = _lost_pairs(data["stages"], name)
        # A pooled cell is many pairs, of which some are kept: the number beside the name has to do.
        overlay = slashes(sorted(lost)) if frames == len(picture) else ""
        slashed = slashed or bool(overlay)
        tips = [f"{name}, query frame {index}: {_tip(row)}" for index, row in enumerate(picture)]
        title = f"{name}: where the attention of {frames} frames goes"
        drawn = grid(picture, scale, title, tips, overlay, gap_before=len(picture[0]) - 1)
        panels.append(_panel(name, drawn, f"{len(lost):,} pairs pruned" if lost else _lost_heads(data["stages"], name)))
    text = (
        "Where attention goes, mean over timesteps and heads of the dense model: query frames in rows, key frames in "
        "columns, and text set apart at the right. Colours follow the square root, which keeps small shares visible."
    )
    overall = _pooled_pairs(data["frame_mass"])
    if len(overall) < len(data["frame_mass"]):
        text += f" {len(data['frame_mass'])} frames are pooled into {len(overall)}."
    mean = figure(
        grid(overall, scale, "mean over all sites", gap_before=len(overall[0]) - 1), "Mean over sites", "panel mean"
    )
    return (
        "<h3>Frame pairs</h3>"
        + paragraph(text, "soft")
        + legend(scale, "share of a query frame's attention", "frame pair pruned" if slashed else "")
        + _many(panels, "small", mean)
    )


def _pooled_pairs(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """At most ``COLUMNS`` frames each way: sums over key frames, means over query frames."""
    ranges = bins(len(rows), COLUMNS)
    keys = [[math.fsum(row[a:b]) for a, b in ranges] + [row[-1]] for row in rows]
    return [[math.fsum(keys[q][k] for q in range(a, b)) / (b - a) for k in range(len(ranges) + 1)] for a, b in ranges]


def _lost_pairs(stages: Sequence[Mapping[str, Any]], name: str) -> set[tuple[int, int]]:
    """Frame pairs that are pruned in any stage, query and key."""
    lost = set()
    for stage in stages:
        site = stage["sites"].get(name)
        if site is not None and site["kept_pairs"] is not None:
            lost |= {
                (q, k) for q, kept in enumerate(site["kept_pairs"]) for k in range(site["frames"]) if k not in kept
            }
    return lost


def _tip(row: Sequence[float]) -> str:
    strongest = sorted(range(len(row) - 1), key=lambda index: -row[index])[:3]
    named = ", ".join(f"frame {index} {row[index]:.3g}" for index in strongest)
    return f"{named}; text {row[-1]:.3g}"
