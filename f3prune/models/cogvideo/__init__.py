"""CogVideo (THUDM, 2022): an autoregressive transformer over image tokens with a spatial and a temporal channel."""

from __future__ import annotations

from f3prune.models.cogvideo.cache import LayerCache
from f3prune.models.cogvideo.config import PUBLISHED, CogVideoConfig
from f3prune.models.cogvideo.model import CogVideo, CogVideoOutput

__all__ = ["PUBLISHED", "CogVideo", "CogVideoConfig", "CogVideoOutput", "LayerCache"]
