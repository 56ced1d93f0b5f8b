"""Families whose attention takes the tokens of all frames at once (layout ``spatiotemporal``)."""

from __future__ import annotations

from f3prune.families.joint import (
    allegro,
    cogvideo,
    cogvideox,
    consisid,
    cosmos,
    easyanimate,
    hunyuan_video,
    ltx,
    mochi,
    wan_based,
)

FAMILIES = (
    *(module.FAMILY for module in (cogvideo, cogvideox, consisid, easyanimate)),
    *wan_based.FAMILIES,
    *(module.FAMILY for module in (ltx, mochi, hunyuan_video, allegro, cosmos)),
)
"""In the order in which they are listed."""

__all__ = ["FAMILIES"]
