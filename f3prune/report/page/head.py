"""The top of the page: what was made of which model, the numbers that matter most, the contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from f3prune.calibration.scores import score_of
from f3prune.report.page.html import Section, finite, number


def head(data: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """Title, key numbers and links to the sections."""
    pruning = data["pruning"]
    unit = {"layer": "layers", "head": "heads", "frame-pair": "frame pairs"}.get(
        str(pruning["granularity"]), str(pruning["granularity"])
    )
    what = (
        f"{data['denoiser_class']} ({data['family']}). {100 * pruning['alpha']:g} % of its {unit} pruned, those of "
        f"least {score_of(pruning['score']).title}, aggregated over {pruning['aggregate']}, mode {pruning['mode']}."
    )
    note = " Conditioning was synthetic: structure, speed and export are measured, not quality." * data["synthetic"]
    links = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in sections)
    shown = "".join(
        f'<div class="tile"><dt>{escape(meaning)}</dt><dd>{escape(value)}</dd></div>' for value, meaning in _tiles(data)
    )
    return (
        f'<header><p class="eyebrow">f3prune report</p><h1>{escape(str(data["model"]))}</h1>'
        f'<p class="lead">{escape(what + note)}</p><dl class="tiles">{shown}</dl>'
        f'<nav aria-label="Contents">{links}</nav></header>'
    )


def _tiles(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    tiles: list[tuple[str, str]] = []
    for name in ("sites", "heads", "pairs"):
        gone, of = (max(counts[key] for counts in data["pruning"]["counts"]) for key in (f"{name}_pruned", name))
        if gone and not (name == "heads" and tiles):
            tiles.append((f"{gone} of {of}", {"pairs": "frame pairs pruned"}.get(name, f"{name} pruned")))
    before, after = data["parameters"]["before"], max(data["parameters"]["after"])
    if after < before:
        tiles.append((f"−{100 * (1 - after / before):.1f} %", "parameters"))
    if data.get("speed"):
        speedup = data["speed"]["speedup"]["engine"]
        tiles.append((f"{speedup:.2f}×", f"speed of a {data['speed']['unit']}, engine to engine"))
    if data.get("ceiling"):
        tiles.append((f"{data['ceiling']['allow']:.2f}×", "ceiling that its matrix products allow"))
    if data.get("fidelity"):
        value = data["fidelity"]["psnr"]
        tiles.append(("equal" if value is None else f"{value:.1f} dB", "PSNR to the dense video"))
        tiles.append((f"{data['fidelity']['ssim']:.3f}", "SSIM to the dense video"))
    if data.get("parity"):
        errors = [finite(step["rel_l2"]) for step in data["parity"]["export"]["steps"]]
        worst = None if None in errors else max((error for error in errors if error is not None), default=None)
        tiles.append((number(worst) if worst is None else f"{worst:.1e}", "relative L2, engine to PyTorch"))
    return tiles
