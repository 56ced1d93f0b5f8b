"""What was pruned: counts of every stage, and the score of every head with the pruned ones marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from f3prune.calibration.scores import score_of
from f3prune.report.page.cells import Scale
from f3prune.report.page.html import Section, details, paragraph, scroll, table

_SHOWN = 400
"""Heads of a model whose scores are shown without being asked for."""


def pruned(data: Mapping[str, Any]) -> Section:
    """The section."""
    rows = [
        [
            str(index),
            _steps(stage),
            f"{counts['sites_pruned']:,} of {counts['sites']:,}",
            f"{counts['heads_pruned']:,} of {counts['heads']:,}",
            f"{counts['pairs_pruned']:,} of {counts['pairs']:,}",
            data["parameters"]["before"],
            after,
        ]
        for index, (stage, counts, after) in enumerate(
            zip(data["stages"], data["pruning"]["counts"], data["parameters"]["after"], strict=True)
        )
    ]
    header = ["stage", "steps", "whole sites", "heads", "frame pairs", "parameters before", "after"]
    parts = [table(header, rows)]
    parts.append("<h3>Scores</h3>")
    score = str(data["pruning"]["score"])
    parts.append(
        paragraph(
            "Aggregate Attention Score of every head: attention paid to other frames, summed over timesteps and "
            "frames. Outlined: pruned"
            + ("." if score == "aas" else f", as {score_of(score).title} chose, not this score."),
            "soft",
        )
    )
    many = len(data["stages"]) > 1
    for index, stage in enumerate(data["stages"]):
        sites = stage["sites"]
        name = f"Stage {index}, steps {_steps(stage)}" if many else "Scores of sites and heads"
        scores = _scores(sites, name)
        heads = sum(len(site["aas"]) for site in sites.values())
        parts.append(scores if heads <= _SHOWN else details(f"{name}: {len(sites)} sites, {heads} heads", scores))
    return Section("pruned", "What was pruned", "".join(parts))


def _steps(stage: Mapping[str, Any]) -> str:
    return f"{stage['steps'][0]}–{stage['steps'][1] - 1}"


def _scores(sites: Mapping[str, Mapping[str, Any]], name: str) -> str:
    values: Sequence[Sequence[float]] = [site["aas"] for site in sites.values()]
    scale, most = Scale.of(values), max((len(row) for row in values), default=0)
    digits = max(0, 4 - len(f"{scale.most:.0f}"))
    head = "".join(f'<th scope="col">{index}</th>' for index in range(most))
    body = []
    for label, site in sites.items():
        gone = set(site["pruned_heads"])
        texts = [f"{value:.{digits}f}" for value in site["aas"]]
        cells = "".join(
            f'<td class="b{scale.level(value)}">{f"<del>{text}</del>" if index in gone else text}</td>'
            for index, (value, text) in enumerate(zip(site["aas"], texts, strict=True))
        )
        missing = "<td></td>" * (most - len(site["aas"]))
        body.append(f'<tr><th scope="row">{escape(label)}</th>{cells}{missing}</tr>')
    return scroll(
        f'<table class="heat"><caption>{escape(name)}</caption><thead><tr><th scope="col">site \\ head</th>{head}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table>",
        escape(name, quote=True),
    )
