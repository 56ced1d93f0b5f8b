"""A denoiser that runs on engines, for a diffusers pipeline that does not know."""

from __future__ import annotations

from f3prune.engines.denoiser._arguments import ArgumentMap
from f3prune.engines.denoiser._denoiser import EngineDenoiser
from f3prune.engines.denoiser._skeleton import load_skeleton, output_class_of

__all__ = ["ArgumentMap", "EngineDenoiser", "load_skeleton", "output_class_of"]
