"""A timestep for every token: it keeps the pipeline's dtype in graphs of half precision, and the graph goes by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exports import synthetic

from f3prune.core.parity import parity
from f3prune.exporter import ExportConfig, export_denoiser
from f3prune.exporter._trace import run_denoiser
from f3prune.exporter.arguments import flatten_arguments
from f3prune.exporter.self_test import OrtGraph
from f3prune.testing import tiny_denoiser


@pytest.mark.parametrize(("dtype", "bound"), [("fp16", 2e-3), ("bf16", 2e-2)])
def test_timesteps_of_tokens_are_not_rounded(tmp_path: Path, dtype: str, bound: float) -> None:
    """613.1 is 613 in fp16 and 612 in bf16; embedded, that is far from it."""
    denoiser = tiny_denoiser("ltx")
    inputs = synthetic(denoiser, "ltx", 2)
    tokens = inputs["hidden_states"].shape[1]
    inputs["timestep"] = torch.full((2, tokens), 613.1)
    # The tokens of a given image are clean.
    inputs["timestep"][:, : tokens // 3] = 0.0
    result = export_denoiser(denoiser, inputs, tmp_path, ExportConfig(dtype=dtype))
    (spec,) = [spec for spec in result.inputs if spec.name == "timestep"]
    assert (spec.dtype, len(spec.shape)) == ("float32", 2)
    assert result.self_test is not None
    arguments = flatten_arguments(inputs)
    graph = OrtGraph(result.path)
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    given = {
        name: tensor.to(half) if name in {"hidden_states", "encoder_hidden_states"} else tensor
        for name, tensor in arguments.tensors.items()
    }
    expected = run_denoiser(denoiser, arguments, arguments.tensors)
    assert parity(expected, graph.run(given).float()).rel_l2 < bound
    rounded = arguments.tensors | {"timestep": inputs["timestep"].to(half).float()}
    assert parity(expected, run_denoiser(denoiser, arguments, rounded)).rel_l2 > bound
