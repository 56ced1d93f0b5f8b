"""Families with attention of their own over the frames (layout ``temporal``): UNets, and Latte."""

from __future__ import annotations

from f3prune.families.temporal import animatediff, i2vgen_xl, latte, modelscope, svd, tune_a_video

FAMILIES = tuple(module.FAMILY for module in (animatediff, modelscope, latte, svd, i2vgen_xl, tune_a_video))
"""In the order in which they are listed."""

__all__ = ["FAMILIES"]
