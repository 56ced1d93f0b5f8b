"""The HTML page of a run: one file, no request to anywhere, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from f3prune.evaluation.svg import bars, heat_map

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--soft:#5c6676;--paper:#fff;--line:#d9dee6;--hue:#2458b8;--gone:#c2410c}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa5b5;--paper:#14181f;--line:#2f3743;--hue:#7aa7ff;
--gone:#ff9561}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .4rem;border-top:1px solid var(--line);
padding-top:1.2rem}p.soft,figcaption{color:var(--soft);margin:.2rem 0 .8rem}figure{margin:0 0 1rem;overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{text-align:left;padding:.25rem 1rem .25rem 0;
border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
td:first-child{white-space:nowrap}.scroll{overflow-x:auto}th{overflow-wrap:normal;font-weight:600}td.n{text-align:right}
img,video{max-width:100%;image-rendering:pixelated;background:#fff}code{font-size:.88em;word-break:break-all}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}.cell,.bar{fill:var(--hue)}.bar{fill-opacity:.75}
.gone,.spread{stroke:var(--gone);stroke-width:1.5;fill:none}.spread{stroke:var(--ink)}
.tiles{display:flex;flex-wrap:wrap;gap:1rem;margin:1.2rem 0}.tile{border:1px solid var(--line);border-radius:.5rem;
padding:.7rem 1rem;min-width:9rem}.tile b{display:block;font-size:1.35rem}.tile span{color:var(--soft)}
.bad{color:var(--gone);font-weight:600}
"""


def render(data: Mapping[str, Any], video: bytes | None, frames: bytes | None) -> str:
    """The page.

    Args:
        data: content of ``report.json``.
        video: MP4 file, shown in place.
        frames: PNG file, shown in place.
    """
    sections = [
        _head(data),
        _tiles(data),
        _video(data, video, frames),
        _pruned(data),
        _scores(data),
        _speed(data),
        _parity(data),
        _provenance(data),
    ]
    title = escape(f"f3prune: {data['model']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        + "".join(section for section in sections if section)
        + "</body></html>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table; numbers are aligned right."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>{f"<tr>{head}</tr>" if header else ""}{body}</table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return f"<td>{'–' if value is None else 'yes' if value else 'no'}</td>"
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    if isinstance(value, float):
        return f'<td class="n">{value:.4g}</td>'
    return f"<td>{escape(str(value))}</td>"


def _head(data: Mapping[str, Any]) -> str:
    pruning = data["pruning"]
    what = (
        f"{data['denoiser_class']} ({data['family']}), α = {pruning['alpha']:g} by {pruning['granularity']}, "
        f"aggregated over {pruning['aggregate']}, mode {pruning['mode']}"
    )
    note = " Conditioning was synthetic: structure, speed and export are measured, not quality." * data["synthetic"]
    return f'<h1>{escape(str(data["model"]))}</h1><p class="soft">{escape(what)}.{escape(note)}</p>'


def _tiles(data: Mapping[str, Any]) -> str:
    tiles = []
    for name in ("sites", "heads", "pairs"):
        gone, of = (max(counts[key] for counts in data["pruning"]["counts"]) for key in (f"{name}_pruned", name))
        if gone:
            tiles.append((f"{gone} of {of}", {"pairs": "frame pairs pruned"}.get(name, f"{name} pruned")))
    before, after = data["parameters"]["before"], max(data["parameters"]["after"])
    tiles.append((f"{100 * (1 - after / before):.1f} %", "of the parameters removed"))
    if data.get("speed"):
        tiles.append((f"{data['speed']['speedup']['engine']:.2f}×", "speed of a denoising step, engine to engine"))
    if data.get("fidelity"):
        value = data["fidelity"]["psnr"]
        tiles.append(("equal" if value is None else f"{value:.1f} dB", "PSNR to the dense video"))
        tiles.append((f"{data['fidelity']['ssim']:.3f}", "SSIM to the dense video"))
    if data.get("parity"):
        worst = max(float(step["rel_l2"]) for step in data["parity"]["export"]["steps"])
        tiles.append((f"{worst:.1e}", "relative L2, engine against PyTorch"))
    shown = "".join(f'<div class="tile"><b>{value}</b><span>{meaning}</span></div>' for value, meaning in tiles)
    return f'<div class="tiles">{shown}</div>'


def _video(data: Mapping[str, Any], video: bytes | None, frames: bytes | None) -> str:
    if frames is None:
        return ""
    parts = ["<h2>Video</h2>", f'<p class="soft">{escape(data["prompt"]["prompt"])}</p>']
    if video is not None:
        parts.append(f'<video controls loop muted src="{_uri(video, "video/mp4")}"></video>')
    parts.append(f'<figure><img alt="frames, dense above pruned" src="{_uri(frames, "image/png")}"></figure>')
    fidelity = data["fidelity"]
    per_frame = fidelity["psnr_per_frame"]
    rows = [["PSNR, dB", *("equal" if value is None else f"{value:.1f}" for value in per_frame)]]
    parts.append(table(["frame", *map(str, range(len(per_frame)))], rows))
    parts.append(
        f'<p class="soft">Mean change of a pixel from frame to frame: {fidelity["flicker_reference"]:.4f} dense, '
        f"{fidelity['flicker_candidate']:.4f} pruned.</p>"
    )
    return "".join(parts)


def _pruned(data: Mapping[str, Any]) -> str:
    rows = [
        [
            index,
            f"{stage['steps'][0]}–{stage['steps'][1] - 1}",
            f"{counts['sites_pruned']} of {counts['sites']}",
            f"{counts['heads_pruned']} of {counts['heads']}",
            f"{counts['pairs_pruned']} of {counts['pairs']}",
            data["parameters"]["before"],
            after,
        ]
        for index, (stage, counts, after) in enumerate(
            zip(data["stages"], data["pruning"]["counts"], data["parameters"]["after"], strict=True)
        )
    ]
    header = ["stage", "steps", "whole sites", "heads", "frame pairs", "parameters before", "after"]
    return "<h2>What was pruned</h2>" + table(header, rows)


def _scores(data: Mapping[str, Any]) -> str:
    parts = ["<h2>Aggregate Attention Score</h2>"]
    for index, stage in enumerate(data["stages"]):
        sites = list(stage["sites"])
        heads = max(len(site["aas"]) for site in stage["sites"].values())
        values = [list(site["aas"]) + [0.0] * (heads - len(site["aas"])) for site in stage["sites"].values()]
        gone = [set(site["pruned_heads"]) for site in stage["sites"].values()]
        labels = [str(head) for head in range(heads)]
        figure = heat_map(sites, labels, values, gone, "AAS of sites and heads")
        caption = f"Stage {index}. " if len(data["stages"]) > 1 else ""
        parts.append(
            f"<figure>{figure}<figcaption>{caption}Attention paid to other frames, summed over timesteps and frames: "
            f"a row per site, a column per head. Crossed out: pruned.</figcaption></figure>"
        )
        pairs = [site for site in stage["sites"].values() if site["kept_pairs"] is not None]
        if pairs:
            frames = pairs[0]["frames"]
            kept = [[sum(j in site["kept_pairs"][i] for site in pairs) for j in range(frames)] for i in range(frames)]
            labels = [str(i) for i in range(frames)]
            figure = heat_map(labels, labels, kept, title="sites at which a frame pair was kept", unit=" sites")
            parts.append(
                f"<figure>{figure}<figcaption>{caption}In how many of {len(pairs)} sites frame i (row) still attends "
                f"to frame j (column).</figcaption></figure>"
            )
    mass = data["frame_mass"]
    labels = [str(i) for i in range(len(mass))]
    figure = heat_map(labels, [*labels, "text"], mass, title="mean frame mass")
    parts.append(
        f"<figure>{figure}<figcaption>Where attention goes, mean over sites, heads and timesteps: query frames "
        f"in rows, key frames and text in columns.</figcaption></figure>"
    )
    steps = data["aas_by_timestep"]
    timesteps = [f"{t:g}" for t in data["timesteps"]]
    figure = heat_map(list(steps), timesteps, list(steps.values()), title="cross-frame attention by timestep")
    parts.append(
        f"<figure>{figure}<figcaption>Share of attention paid to other frames, by site and timestep."
        f"</figcaption></figure>"
    )
    return "".join(parts)


def _speed(data: Mapping[str, Any]) -> str:
    speed = data.get("speed")
    if not speed:
        return ""
    rows = [
        (name, 1e3 * row["median"], 1e3 * row["quartile_1"], 1e3 * row["quartile_3"])
        for name, row in speed["seconds"].items()
    ]
    machine = speed["machine"]
    runs = min(row["runs"] for row in speed["seconds"].values())
    caption = (
        f"{speed['what']}: medians and quartiles of {runs} rounds. Engine: {speed['backend']} {speed['engine_dtype']}; "
        f"PyTorch {speed['torch_dtype']}; batch {speed['batch']}; {machine['gpu'] or machine['processor']}, "
        f"{machine['torch_threads']} threads."
    )
    ratio = speed["speedup"]
    gain = f"Dense over pruned: {ratio['engine']:.2f}× with the engine, {ratio['torch']:.2f}× in PyTorch."
    figure = bars(rows, f"milliseconds per {speed['unit']}", "ms")
    return f"<h2>Speed</h2><p>{escape(gain)}</p><figure>{figure}<figcaption>{escape(caption)}</figcaption></figure>"


def _parity(data: Mapping[str, Any]) -> str:
    parity = data.get("parity")
    if not parity:
        return ""
    parts = ["<h2>Parity</h2>"]
    for name, meaning in (("export", "what export and the engine cost"), ("pruning", "what pruning cost")):
        stage = parity.get(name)
        if not stage:
            continue
        verdict = "" if stage["passed"] else f' <span class="bad">failed: {escape("; ".join(stage["failures"]))}</span>'
        parts.append(
            f"<p><b>{name}</b>, {meaning}: {escape(stage['reference'])} against {escape(stage['candidate'])}, "
            f"the same inputs for both.{verdict}</p>"
        )
        rows = [[s["timestep"], s["rel_l2"], s["max_abs"], s["cosine"]] for s in stage["steps"]]
        parts.append(table(["timestep", "relative L2", "max abs", "cosine"], rows))
        if stage.get("psnr") is not None:
            alike = "they are equal" if stage["psnr"] == "inf" else f"PSNR {float(stage['psnr']):.2f} dB"
            parts.append(f'<p class="soft">Each generating a whole video by itself from one seed: {escape(alike)}.</p>')
    for name, item in parity.get("coupling", {}).items():
        frames = len(item["response"])
        changed = [i for i, row in enumerate(item["response"]) if any(float(value) != 0 for value in row)]
        reached = sum(j != i for i in changed for j in item["responding"][i])
        parts.append(
            f'<p class="soft">{escape(name)}: of the other frames, a change in frame {", ".join(map(str, changed))} '
            f"reaches {reached} of {len(changed) * (frames - 1)}.</p>"
        )
    return "".join(parts)


def _provenance(data: Mapping[str, Any]) -> str:
    rows = [[name, value] for name, value in data["provenance"].items()]
    return "<h2>Provenance</h2>" + table([], rows)


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
