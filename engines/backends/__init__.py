"""One module per backend: how its engines are written, and how its sessions run.

This package itself loads neither a backend nor torch.
"""

from __future__ import annotations

from f3prune.engines.backends.cuda import Gpu, find_gpu, missing_gpu, require_gpu

__all__ = ["Gpu", "find_gpu", "missing_gpu", "require_gpu"]
