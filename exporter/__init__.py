"""Pruned model in, ONNX graph out."""

from __future__ import annotations

from exporter._config import ExportConfig
from exporter._export import export_denoiser
from exporter._result import ExportResult, TensorSpec
from exporter.arguments import flatten_arguments
from exporter.cached import CachedExport, export_cached
from exporter.capture import capture_inputs
from exporter.graph_costs import Cost, GraphCosts, graph_costs
from exporter.graph_facts import GraphFacts, graph_facts
from exporter.self_test import SelfTest

__all__ = [
    "CachedExport",
    "Cost",
    "ExportConfig",
    "ExportResult",
    "GraphCosts",
    "GraphFacts",
    "SelfTest",
    "TensorSpec",
    "capture_inputs",
    "export_cached",
    "export_denoiser",
    "flatten_arguments",
    "graph_costs",
    "graph_facts",
]
