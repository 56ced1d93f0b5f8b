"""ONNX in, engine out; sessions that run it; a denoiser that stands in for PyTorch's; the parity check.

Names load on first use, so that a build worker starts without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from f3prune.core.tensors import TensorSpec as TensorSpec
    from f3prune.engines._record import EngineRecord as EngineRecord
    from f3prune.engines._record import read_record as read_record
    from f3prune.engines.building import BuildConfig as BuildConfig
    from f3prune.engines.building import build_engine as build_engine
    from f3prune.engines.building import plan_engine as plan_engine
    from f3prune.engines.building import share_weights as share_weights
    from f3prune.engines.check import CheckBounds as CheckBounds
    from f3prune.engines.check import CheckReport as CheckReport
    from f3prune.engines.check import Comparison as Comparison
    from f3prune.engines.check import compare as compare
    from f3prune.engines.check import coupling as coupling
    from f3prune.engines.check import parity as parity
    from f3prune.engines.check import teacher_forced as teacher_forced
    from f3prune.engines.denoiser import EngineDenoiser as EngineDenoiser
    from f3prune.engines.session import Session as Session
    from f3prune.engines.session import open_session as open_session
    from f3prune.engines.step_reuse import StepReuse as StepReuse

_PLACES = {
    "build_engine": "f3prune.engines.building",
    "plan_engine": "f3prune.engines.building",
    "BuildConfig": "f3prune.engines.building",
    "CheckBounds": "f3prune.engines.check",
    "CheckReport": "f3prune.engines.check",
    "Comparison": "f3prune.engines.check",
    "EngineDenoiser": "f3prune.engines.denoiser",
    "EngineRecord": "f3prune.engines._record",
    "read_record": "f3prune.engines._record",
    "Session": "f3prune.engines.session",
    "open_session": "f3prune.engines.session",
    "share_weights": "f3prune.engines.building",
    "TensorSpec": "f3prune.core.tensors",
    "compare": "f3prune.engines.check",
    "coupling": "f3prune.engines.check",
    "parity": "f3prune.engines.check",
    "teacher_forced": "f3prune.engines.check",
    "StepReuse": "f3prune.engines.step_reuse",
}

__all__ = [
    "BuildConfig",
    "CheckBounds",
    "CheckReport",
    "Comparison",
    "EngineDenoiser",
    "EngineRecord",
    "Session",
    "StepReuse",
    "TensorSpec",
    "build_engine",
    "compare",
    "coupling",
    "open_session",
    "parity",
    "plan_engine",
    "read_record",
    "share_weights",
    "teacher_forced",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'f3prune.engines' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
