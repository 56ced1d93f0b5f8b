"""The HTML page of a run: one file, no request to anywhere, light and dark, complete without its script."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from f3prune.report.page.atlas import atlas
from f3prune.report.page.head import head
from f3prune.report.page.html import Media
from f3prune.report.page.parity import parity
from f3prune.report.page.provenance import provenance
from f3prune.report.page.pruned import pruned
from f3prune.report.page.quality import quality
from f3prune.report.page.script import SCRIPT, policy
from f3prune.report.page.speed import speed
from f3prune.report.page.style import style
from f3prune.report.page.sweep import sweep
from f3prune.report.page.video import video

__all__ = ["Media", "render"]


def render(data: Mapping[str, Any], media: Media) -> str:
    """The page; sections that the run has nothing for are left out.

    Args:
        data: content of ``report.json``.
        media: videos and frames, shown in place.
    """
    found = [
        video(data, media),
        quality(data),
        pruned(data),
        atlas(data),
        speed(data),
        sweep(data),
        parity(data),
        provenance(data),
    ]
    sections = [section for section in found if section is not None]
    title = escape(f"f3prune: {data['model']}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">'
        f"<title>{title}</title>"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{style()}</style></head><body><main>{head(data, sections)}"
        + "".join(section.html() for section in sections)
        + f"</main><script>{SCRIPT}</script></body></html>\n"
    )
