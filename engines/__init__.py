"""ONNX in, engine out; sessions that run it; a denoiser that stands in for PyTorch's; the parity check.

Names load on first use, so that a build worker starts without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines._build import build_engine as build_engine
    from engines._build import plan_engine as plan_engine
    from engines._config import BuildConfig as BuildConfig
    from engines._denoiser import EngineDenoiser as EngineDenoiser
    from engines._record import EngineRecord as EngineRecord
    from engines._record import read_record as read_record
    from engines._session import Session as Session
    from engines._session import open_session as open_session
    from engines._sharing import share_weights as share_weights
    from engines._specs import TensorSpec as TensorSpec
    from engines.check import CheckBounds as CheckBounds
    from engines.check import CheckReport as CheckReport
    from engines.check import Comparison as Comparison
    from engines.check import compare as compare
    from engines.check import coupling as coupling
    from engines.check import parity as parity
    from engines.check import psnr as psnr
    from engines.check import record_calls as record_calls
    from engines.check import teacher_forced as teacher_forced
    from engines.step_reuse import StepReuse as StepReuse

_PLACES = {
    "build_engine": "engines._build",
    "plan_engine": "engines._build",
    "BuildConfig": "engines._config",
    "CheckBounds": "engines.check",
    "CheckReport": "engines.check",
    "Comparison": "engines.check",
    "EngineDenoiser": "engines._denoiser",
    "EngineRecord": "engines._record",
    "read_record": "engines._record",
    "Session": "engines._session",
    "open_session": "engines._session",
    "share_weights": "engines._sharing",
    "TensorSpec": "engines._specs",
    "compare": "engines.check",
    "coupling": "engines.check",
    "parity": "engines.check",
    "psnr": "engines.check",
    "record_calls": "engines.check",
    "teacher_forced": "engines.check",
    "StepReuse": "engines.step_reuse",
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
    "psnr",
    "read_record",
    "record_calls",
    "share_weights",
    "teacher_forced",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'engines' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
