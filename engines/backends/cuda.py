"""Is there an NVIDIA GPU with a driver? Asked of the driver itself, before any library can fail in its own words."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from f3prune.core.errors import BackendError

_NO_DEVICE = 100
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """One GPU: product name and compute capability, e.g. ``NVIDIA GeForce RTX 4090``, ``8.9``; the CUDA version of its
    driver, e.g. ``13.1``, empty where nobody asked."""

    name: str
    capability: str
    driver: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.capability})"


def find_gpu(index: int = 0) -> Gpu | str:
    """The GPU with that index, or why there is none, as the end of a sentence."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"this machine has no NVIDIA driver ({library} not found)"
    code = driver.cuInit(0)
    if code == _NO_DEVICE:
        return "the NVIDIA driver sees no GPU (check CUDA_VISIBLE_DEVICES)"
    if code != 0:
        return f"the NVIDIA driver does not start (cuInit returned {code})"
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value <= index:
        return f"the NVIDIA driver sees {count.value} GPUs, none with index {index}"
    device = ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", cuda)


def missing_gpu(backend: str) -> str | None:
    """Why engines of a backend cannot run on this machine, as the end of a sentence; None where nothing is missing."""
    found = None if backend == "onnxruntime" else find_gpu()
    return found if isinstance(found, str) else None


def require_gpu(what: str, index: int = 0) -> Gpu:
    """The GPU, or one line that says what needs it.

    Raises:
        BackendError: there is no GPU or no driver.
    """
    found = find_gpu(index)
    if isinstance(found, str):
        raise BackendError(
            f"{what} needs an NVIDIA GPU, but {found}: use a machine with one, or `backend='onnxruntime'`"
        )
    return found
