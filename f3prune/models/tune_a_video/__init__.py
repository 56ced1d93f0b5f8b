"""Tune-A-Video (arXiv 2212.11565): an image UNet that attends across frames, tuned on one video.

Names are found when they are first used, so that importing this imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from f3prune.models.tune_a_video._unet import TuneAVideoUNet, TuneAVideoUNetOutput

_MODULES = {
    "TuneAVideoUNet": "_unet",
    "TuneAVideoUNetOutput": "_unet",
}

__all__ = ["TuneAVideoUNet", "TuneAVideoUNetOutput"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
