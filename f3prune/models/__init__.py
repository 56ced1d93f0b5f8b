"""CogVideo and Tune-A-Video, the two models of the paper, which no library has. Importing this imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from f3prune.models.cogvideo import CogVideo, CogVideoConfig
    from f3prune.models.cogvideo.pipeline import CogVideoPipeline
    from f3prune.models.cogvideo.text import WordTokenizer
    from f3prune.models.cogvideo.vq import PatchVQ
    from f3prune.models.tune_a_video import TuneAVideoUNet, TuneAVideoUNetOutput

_MODULES = {
    # Where a pipeline's index names a class of this module, diffusers looks for its own base class here too.
    "ModelMixin": "diffusers",
    "TuneAVideoPipeline": "f3prune.models.tune_a_video.pipeline",
    "CogVideo": "f3prune.models.cogvideo",
    "CogVideoConfig": "f3prune.models.cogvideo",
    "CogVideoPipeline": "f3prune.models.cogvideo.pipeline",
    "PatchVQ": "f3prune.models.cogvideo.vq",
    "WordTokenizer": "f3prune.models.cogvideo.text",
    "TuneAVideoUNet": "f3prune.models.tune_a_video",
    "TuneAVideoUNetOutput": "f3prune.models.tune_a_video",
}

__all__ = [
    "CogVideo",
    "CogVideoConfig",
    "CogVideoPipeline",
    "PatchVQ",
    "WordTokenizer",
    "TuneAVideoUNet",
    "TuneAVideoUNetOutput",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
