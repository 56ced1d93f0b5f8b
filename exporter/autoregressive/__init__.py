"""Export of a model that generates token by token: a prefill graph and a decode-step graph, caches in and out."""

from __future__ import annotations

from f3prune.exporter.autoregressive._export import AutoregressiveExport, export_autoregressive

__all__ = ["AutoregressiveExport", "export_autoregressive"]
