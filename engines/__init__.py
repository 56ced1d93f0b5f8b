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
    from engines._record import EngineRecord as EngineRecord
    from engines._record import read_record as read_record
    from engines._session import Session as Session
    from engines._session import open_session as open_session
    from engines._specs import TensorSpec as TensorSpec

_PLACES = {
    "build_engine": "engines._build",
    "plan_engine": "engines._build",
    "BuildConfig": "engines._config",
    "EngineRecord": "engines._record",
    "read_record": "engines._record",
    "Session": "engines._session",
    "open_session": "engines._session",
    "TensorSpec": "engines._specs",
}

__all__ = [
    "BuildConfig",
    "EngineRecord",
    "Session",
    "TensorSpec",
    "build_engine",
    "open_session",
    "plan_engine",
    "read_record",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'engines' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
