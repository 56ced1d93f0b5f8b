"""A graph in, an engine's files out: in a process of its own, or from the engine cache."""

from __future__ import annotations

from f3prune.engines.building._build import build_engine, plan_engine
from f3prune.engines.building._cache import cache_directory, distrust
from f3prune.engines.building._config import BuildConfig, DimensionRange, parse_capability
from f3prune.engines.building._sharing import share_weights
from f3prune.engines.building._worker_call import Progress, run_job

__all__ = [
    "BuildConfig",
    "DimensionRange",
    "Progress",
    "build_engine",
    "cache_directory",
    "distrust",
    "parse_capability",
    "plan_engine",
    "run_job",
    "share_weights",
]
