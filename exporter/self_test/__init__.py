"""An exported file in ONNX Runtime against PyTorch."""

from __future__ import annotations

from f3prune.exporter.self_test._bfloat16 import save_as_float32
from f3prune.exporter.self_test._ort_cpu import OrtGraph
from f3prune.exporter.self_test._self_test import SelfTest, self_test

__all__ = ["OrtGraph", "SelfTest", "save_as_float32", "self_test"]
