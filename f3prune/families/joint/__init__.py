"""Families whose attention takes the tokens of all frames at once (layout ``spatiotemporal``)."""

from __future__ import annotations

from f3prune.families.joint import (
    allegro,
    cogvideo,
    cogvideox,
    framepack,
    hunyuan_video,
    hunyuan_video15,
    kandinsky5,
    ltx,
    ltx2,
    mochi,
    skyreels_v2,
    wan,
)

FAMILIES = tuple(
    module.FAMILY
    for module in (
        cogvideo,
        cogvideox,
        wan,
        skyreels_v2,
        ltx,
        ltx2,
        mochi,
        hunyuan_video,
        hunyuan_video15,
        framepack,
        kandinsky5,
        allegro,
    )
)
"""In the order in which they are listed."""

__all__ = ["FAMILIES"]
