"""Parity by stage of the pipeline: what pruning cost, what export cost, which frames still hear of each other."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from f3prune.report.page.cells import Scale, grid, legend
from f3prune.report.page.html import Section, chip, details, figure, finite, number, paragraph, table
from f3prune.report.page.plot import Axis, Line, Point, plot

_STAGES = (("pruning", "what pruning cost", "gone"), ("export", "what export and the engine cost", "pruned"))
_PLACES = {"pruning": "Pruning", "export": "Export and engine"}


def parity(data: Mapping[str, Any]) -> Section | None:
    """The section, if the run was checked."""
    found = data.get("parity")
    if not found:
        return None
    stages = [(name, meaning, kind, found[name]) for name, meaning, kind in _STAGES if found.get(name)]
    cards = "".join(_card(name, stage) for name, _, _, stage in stages)
    parts = [
        paragraph(
            "The same recorded inputs go to both sides, call by call, so that one call's error feeds no other.", "soft"
        ),
        f'<div class="cards">{cards}</div>',
        _chart(stages),
    ]
    for name, meaning, _, stage in stages:
        rows = [
            [f"{s['timestep']:g}", finite(s["rel_l2"]), finite(s["max_abs"]), _text(s["cosine"])]
            for s in stage["steps"]
        ]
        numbers = table(["timestep", "relative L2", "max abs", "cosine"], rows)
        parts.append(details(f"{_PLACES[name]}, {meaning}, by timestep", numbers))
    return Section("parity", "Parity by stage", "".join(parts) + _coupling(found.get("coupling") or {}))


def _card(name: str, stage: Mapping[str, Any]) -> str:
    asked = any(value is not None for value in stage["bounds"].values())
    verdict = chip("passed", "good") if stage["passed"] else chip("failed", "bad")
    if stage["passed"] and not asked:
        verdict = chip("measured, no bound asked", "plain")
    errors = [finite(step["rel_l2"]) for step in stage["steps"]]
    worst = "not finite" if None in errors else f"{max((e for e in errors if e is not None), default=0.0):.2e}"
    bound = stage["bounds"].get("rel_l2")
    terms = [("worst relative L2", worst + (f" (bound {bound:g})" if bound is not None else ""))]
    if stage.get("psnr") is not None:
        alike = finite(stage["psnr"])
        # Each side made the whole video by itself from one seed.
        terms.append(("PSNR of the whole video", "equal" if alike is None else f"{alike:.2f} dB"))
    failures = "".join(f"<li>{escape(failure)}</li>" for failure in stage["failures"])
    listed = f'<ul class="bad">{failures}</ul>' if failures else ""
    shown = "".join(f"<div><dt>{meaning}</dt><dd>{escape(value)}</dd></div>" for meaning, value in terms)
    return (
        f'<article class="card"><h3>{_PLACES[name]} {verdict}</h3><p class="flow">'
        f"<span>{escape(stage['reference'])}</span>"
        f'<span class="arrow" role="img" aria-label="against">→</span><span>{escape(stage["candidate"])}</span></p>'
        f"<dl>{shown}</dl>{listed}</article>"
    )


def _text(value: Any) -> str:
    shown = finite(value)
    return str(value) if shown is None else f"{shown:.7f}"


def _chart(stages: list[tuple[str, str, str, Mapping[str, Any]]]) -> str:
    curves = []
    for name, _, kind, stage in stages:
        known = [(float(step["timestep"]), finite(step["rel_l2"])) for step in stage["steps"]]
        curve = [(at, value) for at, value in known if value]
        if curve:
            curves.append((name, kind, curve))
    if not curves:
        return ""
    times = [at for _, _, curve in curves for at, _ in curve]
    across = Axis.around("timestep, in the order of generation", times, flipped=times[0] > times[-1])
    up = Axis.decades("relative L2", [value for _, _, curve in curves for _, value in curve])
    points = [
        Point(at, value, f"{_PLACES[name]}, timestep {at:g}: {value:.3g}", kind=kind)
        for name, kind, curve in curves
        for at, value in curve
    ]
    lines = [Line(curve, kind) for _, kind, curve in curves]
    keys = "".join(f'<span><span class="key {kind}"></span>{_PLACES[name]}</span>' for name, kind, _ in curves)
    drawn = plot(across, up, points, lines, "relative L2 by timestep of every stage", height=220)
    return figure(f'<div class="keys">{keys}</div>{drawn}', "Distance of every recorded denoiser call, logarithmic.")


def _coupling(couplings: Mapping[str, Mapping[str, Any]]) -> str:
    pictures, texts = {}, []
    for name, item in couplings.items():
        frames = len(item["response"])
        rows = [[finite(value) or 0.0 for value in row] for row in item["response"]]
        changed = [index for index, row in enumerate(rows) if any(row)]
        reached = sum(other != index for index in changed for other in item["responding"][index])
        texts.append(
            f"{name}: of the other frames, a change in frame {', '.join(map(str, changed))} reaches {reached} of "
            f"{len(changed) * (frames - 1)}."
        )
        pictures[name] = ([rows[index] for index in changed], changed)
    if not any(rows for rows, _ in pictures.values()):
        return ""
    scale = Scale.of([row for rows, _ in pictures.values() for row in rows], power=0.5, least=0.0)
    panels = "".join(
        figure(
            grid(
                rows,
                scale,
                f"{name}: response of every frame",
                [_tip(index, row) for index, row in zip(changed, rows, strict=True)],
            ),
            name,
            "panel mean",
        )
        for name, (rows, changed) in pictures.items()
    )
    lead = (
        "How strongly every output frame (column) answers when one frame of the latents is changed (row), over the "
        "size of the change. What dense and pruned share is temporal coupling that pruning left."
    )
    return (
        "<h3>Coupling of frames</h3>"
        + paragraph(lead, "soft")
        + legend(scale, "response")
        + f'<div class="panels">{panels}</div>'
        + "".join(paragraph(text, "soft") for text in texts)
    )


def _tip(index: int, row: list[float]) -> str:
    return f"frame {index} changed: " + ", ".join(f"{other}: {number(value)}" for other, value in enumerate(row))
