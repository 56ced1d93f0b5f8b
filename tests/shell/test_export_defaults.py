"""What a graph is exported in when nobody says."""

from __future__ import annotations

from typing import Any

import pytest

from f3prune.cli.options.exporting import export_config
from f3prune.core.choices import BACKENDS, graph_dtype
from f3prune.exporter import ExportConfig


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ({}, "fp32"),
        ({"backend": "tensorrt-rtx"}, "bf16"),
        ({"backend": "tensorrt"}, "bf16"),
        ({"backend": "tensorrt-rtx", "compute_capabilities": ("7.5", "8.9")}, "fp16"),
        ({"backend": "tensorrt-rtx", "opset": 20}, "fp16"),
        ({"backend": "tensorrt-rtx", "dtype": "fp32"}, "fp32"),
        ({"dtype": "fp16"}, "fp16"),
    ],
)
def test_the_default_goes_by_what_runs_the_graph(given: dict[str, Any], dtype: str) -> None:
    nothing = {"backend": "onnxruntime", "compute_capabilities": (), "dtype": None, "opset": None, "dynamic": None}
    assert export_config(nothing | given).dtype == dtype


def test_every_backend_has_a_default_that_can_be_exported() -> None:
    for backend in BACKENDS:
        for opset in (18, 21, 22, 23, None):
            ExportConfig(graph_dtype(backend, (), opset), opset)  # type: ignore[arg-type]
