"""An exported file in ONNX Runtime against PyTorch."""

from __future__ import annotations

from f3prune.exporter.self_test._ort_cpu import OrtGraph
from f3prune.exporter.self_test._self_test import SelfTest, self_test

__all__ = ["OrtGraph", "SelfTest", "self_test"]
