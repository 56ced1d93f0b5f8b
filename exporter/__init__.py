"""Pruned model in, ONNX graph out."""

from __future__ import annotations

from f3prune.core.tensors import TensorSpec
from f3prune.exporter._config import ExportConfig
from f3prune.exporter._export import export_denoiser
from f3prune.exporter._result import ExportResult
from f3prune.exporter.arguments import flatten_arguments
from f3prune.exporter.autoregressive import AutoregressiveExport, export_autoregressive
from f3prune.exporter.costs import GraphCosts, graph_costs
from f3prune.exporter.graph_facts import GraphFacts, graph_facts
from f3prune.exporter.self_test import SelfTest

__all__ = [
    "AutoregressiveExport",
    "ExportConfig",
    "ExportResult",
    "GraphCosts",
    "GraphFacts",
    "SelfTest",
    "TensorSpec",
    "export_autoregressive",
    "export_denoiser",
    "flatten_arguments",
    "graph_costs",
    "graph_facts",
]
