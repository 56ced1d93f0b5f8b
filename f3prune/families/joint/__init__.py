"""Families whose attention takes the tokens of all frames at once (layout ``spatiotemporal``)."""

from __future__ import annotations

from f3prune.families.joint import (
    allegro,
    cogvideo,
    cogvideox,
    consisid,
    cosmos,
    easyanimate,
    framepack,
    hunyuan_video,
    hunyuan_video15,
    kandinsky5,
    ltx,
    ltx2,
    mochi,
    wan_based,
)

FAMILIES = (
    *(module.FAMILY for module in (cogvideo, cogvideox, consisid, easyanimate)),
    *wan_based.FAMILIES,
    *(module.FAMILY for module in (ltx, ltx2, mochi, hunyuan_video, hunyuan_video15, framepack)),
    *(module.FAMILY for module in (kandinsky5, allegro, cosmos)),
)
"""In the order in which they are listed."""

__all__ = ["FAMILIES"]
