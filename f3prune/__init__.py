"""f3prune: prune the temporal attention of text-to-video models, export them to ONNX, build engines, generate video.

The names below load on first use, so that importing this package imports neither torch nor diffusers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from f3prune import zoo as zoo
    from f3prune.calibration import Calibration as Calibration
    from f3prune.calibration import Masks as Masks
    from f3prune.calibration import PruneConfig as PruneConfig
    from f3prune.calibration import calibrate as calibrate
    from f3prune.calibration import load_pruned as load_pruned
    from f3prune.calibration import prune_denoiser as prune_denoiser
    from f3prune.calibration import rank_units as rank_units
    from f3prune.calibration import record_calls as record_calls
    from f3prune.calibration import refit as refit
    from f3prune.calibration import save_pruned as save_pruned
    from f3prune.calibration import select_masks as select_masks
    from f3prune.core.errors import F3PruneError as F3PruneError
    from f3prune.engines import BuildConfig as BuildConfig
    from f3prune.engines import EngineDenoiser as EngineDenoiser
    from f3prune.engines import build_engine as build_engine
    from f3prune.engines import open_session as open_session
    from f3prune.exporter import ExportConfig as ExportConfig
    from f3prune.exporter import export_denoiser as export_denoiser

__version__ = "0.1.0"

_PLACES = {
    "f3prune.calibration": (
        "Calibration",
        "Masks",
        "PruneConfig",
        "calibrate",
        "load_pruned",
        "prune_denoiser",
        "rank_units",
        "record_calls",
        "refit",
        "save_pruned",
        "select_masks",
    ),
    "f3prune.core.errors": ("F3PruneError",),
    "f3prune.engines": ("BuildConfig", "EngineDenoiser", "build_engine", "open_session"),
    "f3prune.exporter": ("ExportConfig", "export_denoiser"),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "BuildConfig",
    "Calibration",
    "EngineDenoiser",
    "ExportConfig",
    "F3PruneError",
    "Masks",
    "PruneConfig",
    "__version__",
    "build_engine",
    "calibrate",
    "export_denoiser",
    "load_pruned",
    "open_session",
    "prune_denoiser",
    "rank_units",
    "record_calls",
    "refit",
    "save_pruned",
    "select_masks",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name == "zoo":
        return importlib.import_module("f3prune.zoo")
    if name not in _MODULES:
        raise AttributeError(f"module 'f3prune' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
