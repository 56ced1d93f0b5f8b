"""Wan and the families built of its blocks: self-attention over all frames, text by cross-attention."""

from __future__ import annotations

from f3prune.families.joint.wan_based import anyflow, chronoedit, helios, skyreels_v2, wan, wan_animate, wan_vace

FAMILIES = tuple(module.FAMILY for module in (wan, skyreels_v2, wan_vace, wan_animate, chronoedit, anyflow, helios))
"""In the order in which they are listed."""

__all__ = ["FAMILIES"]
