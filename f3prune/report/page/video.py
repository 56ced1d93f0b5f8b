"""Dense and pruned video side by side, and some of their frames."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from f3prune.report.page.html import Media, Section, figure, paragraph, table, uri

_CONTROLS = (
    '<div class="player" hidden><button type="button" data-do="play" aria-pressed="false">Play</button>'
    '<button type="button" data-do="back" aria-label="one frame back">−1</button>'
    '<button type="button" data-do="on" aria-label="one frame on">+1</button>'
    '<input type="range" min="0" max="1" step="any" value="0" aria-label="position in both videos">'
    '<output aria-live="off">frame 0</output></div>'
)
"""Shown by the script, which takes the videos' own controls away."""


def video(data: Mapping[str, Any], media: Media) -> Section | None:
    """The section, if a video was generated."""
    if media.frames is None:
        return None
    prompt = str(data["prompt"]["prompt"])
    parts = [f'<blockquote class="prompt">{escape(prompt)}</blockquote>']
    clips = [(name, content) for name, content in (("dense", media.dense), ("pruned", media.pruned)) if content]
    if clips:
        shown = "".join(
            f'<figure><video controls loop muted playsinline preload="auto" aria-label="{name} video: '
            f'{escape(prompt, quote=True)}" src="{uri(content, "video/mp4")}"></video>'
            f'<figcaption><span class="key {name}"></span>{meaning}</figcaption></figure>'
            for (name, content), meaning in zip(clips, _meanings(clips), strict=True)
        )
        parts.append(f'<div class="videos" data-fps="{media.fps:g}"><div class="pair">{shown}</div>{_CONTROLS}</div>')
    sheet = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="frames"><img class="sheet" '
        f'alt="Frames of the dense video above the same frames of the pruned one" '
        f'src="{uri(media.frames, "image/png")}"></div>'
    )
    parts.append(figure(sheet, "Frames from first to last: dense above, pruned below."))
    return Section("video", "Video", "".join([*parts, _fidelity(data)]))


def _meanings(clips: list[tuple[str, bytes]]) -> list[str]:
    made = {"dense": "Dense, PyTorch", "pruned": "Pruned, engine"}
    return [made[name] for name, _ in clips]


def _fidelity(data: Mapping[str, Any]) -> str:
    found = data["fidelity"]
    per_frame = found["psnr_per_frame"]
    row = ["PSNR, dB", *("equal" if value is None else round(float(value), 1) for value in per_frame)]
    text = (
        f"Mean change of a pixel from frame to frame: {found['flicker_reference']:.4f} dense, "
        f"{found['flicker_candidate']:.4f} pruned."
    )
    return table(["frame", *map(str, range(len(per_frame)))], [row]) + paragraph(text, "soft")
