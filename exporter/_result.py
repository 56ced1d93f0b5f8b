"""What an export hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from f3prune.core.json_values import json_values
from f3prune.core.tensors import DATA_FILE, GRAPH_FILE, TensorSpec
from f3prune.exporter.graph_facts import GraphFacts, graph_facts
from f3prune.exporter.self_test import SelfTest


@dataclass(frozen=True)
class ExportResult:
    """An exported denoiser.

    Attributes:
        path: the ``.onnx`` file.
        data_path: the weights beside it; ``None`` when all fit in the graph.
        inputs: what it takes, in the order of the graph.
        outputs: what it returns: ``sample``, or ``out_sample`` where an input is called ``sample``; then others.
        constants: forward arguments that were baked in, by name.
        metadata: its ``f3prune.*`` properties.
        opset: of the file.
        facts: node and parameter counts.
        self_test: how close ONNX Runtime came to PyTorch; ``None`` when switched off.
        self_test_skipped: why there is no self-test although it was asked for.
        rewrites: names of the graph rewrites that changed something.
    """

    path: Path
    data_path: Path | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    constants: Mapping[str, Any]
    metadata: Mapping[str, str]
    opset: int
    facts: GraphFacts
    self_test: SelfTest | None
    rewrites: tuple[str, ...]
    self_test_skipped: str | None = None

    @classmethod
    def of(
        cls,
        graph: ir.Model,
        directory: Path,
        constants: Mapping[str, Any],
        rewrites: tuple[str, ...],
        self_test: SelfTest | None,
        self_test_skipped: str | None = None,
    ) -> ExportResult:
        """What ``graph`` is, whose files lie in ``directory`` now."""
        data = directory / DATA_FILE
        return cls(
            path=directory / GRAPH_FILE,
            data_path=data if data.exists() else None,
            inputs=tuple(map(_spec_of, graph.graph.inputs)),
            outputs=tuple(map(_spec_of, graph.graph.outputs)),
            constants=constants,
            metadata=dict(graph.metadata_props),
            opset=graph.opset_imports[""],
            facts=graph_facts(graph),
            self_test=self_test,
            rewrites=rewrites,
            self_test_skipped=self_test_skipped,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values; paths by file name."""
        values = json_values(self)
        path, data = values.pop("path"), values.pop("data_path")
        return {"file": Path(path).name, "data": data and Path(data).name, **values}


def _spec_of(value: ir.Value) -> TensorSpec:
    dtype = ir.tensor_adapters.to_torch_dtype(value.dtype)
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorSpec(value.name, str(dtype).removeprefix("torch."), shape)
