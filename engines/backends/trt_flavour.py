"""TensorRT or TensorRT-RTX: one code path, chosen once per process.

Polygraphy decides at import which of the two it drives, and both register classes of the same names, so a process that
runs one refuses the other. Builds run in a process of their own and never meet this limit.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from types import ModuleType

from f3prune.core.errors import BackendError
from f3prune.engines.backends.cuda import Gpu

_MODULES = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
_DISTRIBUTIONS = {
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
}
PACKAGES = tuple(name for names in _DISTRIBUTIONS.values() for name in names)
"""All that may have brought a flavour: what was installed is recorded with what was built."""
DEFAULT_TARGETS = ("8.0", "8.6", "8.9", "12.0+")
"""What a TensorRT-RTX engine runs on for which no compute capability was named: Ampere, Ada, Blackwell and later
(developer guide of TensorRT-RTX 1.7). Turing, 7.5, has to be named."""
_INSTALL = {
    "tensorrt-rtx": "pip install 'f3prune[cu12]', or 'f3prune[cu13]' for CUDA 13",
    "tensorrt": "pip install 'f3prune[tensorrt]'",
}
_VARIABLE = "POLYGRAPHY_USE_TENSORRT_RTX"


def require_installed(flavour: str) -> None:
    """Check that the flavour's Python package and Polygraphy are there, without importing them.

    Raises:
        BackendError: with the line that installs what is missing.
    """
    if find_spec(_MODULES[flavour]) is None:
        raise BackendError(f"backend {flavour} is not installed: {_INSTALL[flavour]}, or use `backend='onnxruntime'`")
    if find_spec("polygraphy") is None:
        raise BackendError(
            f"backend {flavour} needs Polygraphy, which is not installed: pip install 'polygraphy>=0.53.6'"
        )


def installed_version(flavour: str) -> str:
    """Version of the installed flavour.

    Raises:
        BackendError: it is not installed.
    """
    require_installed(flavour)
    for name in _DISTRIBUTIONS[flavour]:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return str(importlib.import_module(_MODULES[flavour]).__version__)


def require_supported(flavour: str, gpu: Gpu) -> None:
    """Check that the flavour runs on a GPU at all. TensorRT-RTX leaves data-centre generations out (9.0, 10.0).

    Raises:
        BackendError: it does not, with the backend that does.
    """
    if flavour != "tensorrt-rtx":
        return
    trt = select(flavour)
    names = (name.removeprefix("SM") for name in dir(trt.ComputeCapability) if name.startswith("SM"))
    listed = sorted((int(digits[:-1]), int(digits[-1])) for digits in names)
    capability = _numbers(gpu.capability)
    if capability in listed or capability > listed[-1]:
        return
    supported = ", ".join(f"{a}.{b}" for a, b in listed)
    raise BackendError(
        f"tensorrt-rtx {trt.__version__} does not run on {gpu}, only on compute capabilities {supported} and later: "
        f"use `backend='tensorrt'` or `'onnxruntime'`"
    )


def targets(named: Sequence[str]) -> list[str]:
    """The compute capabilities that a TensorRT-RTX engine runs on, as ``engine.json`` lists them."""
    return sorted(named) or list(DEFAULT_TARGETS)


def runs_on(listed: Sequence[str], capability: str) -> bool:
    """Whether ``capability`` is among those listed; ``12.0+`` stands for 12.0 and all later ones."""
    return any(
        _numbers(capability) >= _numbers(entry[:-1]) if entry.endswith("+") else capability == entry for entry in listed
    )


def in_words(listed: Sequence[str]) -> str:
    """``8.9, 12.0 and later``."""
    return ", ".join(f"{entry[:-1]} and later" if entry.endswith("+") else entry for entry in listed)


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))


def select(flavour: str) -> ModuleType:
    """Point Polygraphy at ``flavour`` and return the TensorRT module.

    Raises:
        BackendError: it is not installed, does not load, or this process already runs the other flavour.
    """
    require_installed(flavour)
    wants_rtx = flavour == "tensorrt-rtx"
    from polygraphy import config

    if bool(config.USE_TENSORRT_RTX) != wants_rtx:
        if any(name.startswith("polygraphy.backend.trt") for name in sys.modules):
            other = "tensorrt-rtx" if config.USE_TENSORRT_RTX else "tensorrt"
            raise BackendError(
                f"this process already runs {other}, and one process runs one TensorRT flavour: "
                f"open {flavour} in another process"
            )
        config.USE_TENSORRT_RTX = wants_rtx
    os.environ[_VARIABLE] = "1" if wants_rtx else "0"
    try:
        return importlib.import_module(_MODULES[flavour])
    except (ImportError, OSError) as error:
        raise BackendError(
            f"backend {flavour} is installed but does not load ({error}): {_INSTALL[flavour]}"
        ) from error
