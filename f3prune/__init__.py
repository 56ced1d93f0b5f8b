"""f3prune: prune the temporal attention of text-to-video models, export them, build engines, generate video."""

from __future__ import annotations

__version__ = "0.1.0"
