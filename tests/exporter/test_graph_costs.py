"""Costs of a graph: by hand, against PyTorch's counter, and against the formula of a whole denoiser."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.utils.flop_counter import FlopCounterMode

from f3prune.bench.costs.ceiling import matmuls_allow
from f3prune.bench.costs.machine import MachineRates
from f3prune.core.errors import ArtifactError, InputError
from f3prune.exporter.costs import GraphCosts, graph_costs
from f3prune.families import family_of
from tests.exports import synthetic

B, N, H, D = 2, 10, 3, 4
W = H * D


def model(nodes, dims, out, weights=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in dims.items()],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights],
    )
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def written_out():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="block.attn.to_q/MatMul"),
        helper.make_node("MatMul", ["q", "k"], ["s"], name="block.attn/MatMul_1"),
        helper.make_node("Softmax", ["s"], ["a"], name="block.attn/Softmax"),
        helper.make_node("MatMul", ["a", "v"], ["o"], name="block.attn/MatMul_2"),
        helper.make_node("Relu", ["p"], ["r"], name="/Relu"),
        helper.make_node("ReduceSum", ["o"], ["total"], name="/ReduceSum"),
        helper.make_node("Add", ["r", "total"], ["y"], name="/Add"),
    ]
    dims = {"x": ["batch", N, W], "q": ["batch", H, N, D], "k": ["batch", H, D, N], "v": ["batch", H, N, D]}
    return model(nodes, dims, "y", [("w", (W, W))])


def by_module(costs: GraphCosts) -> dict[str, int]:
    """Operations of matrix products by module."""
    found: dict[str, int] = {}
    for node in costs.nodes:
        found[node.module] = found.get(node.module, 0) + node.matmul_flops
    return found


def test_hand_computed_attention():
    costs = graph_costs(written_out(), {"batch": B})
    linear, attention = 2 * B * N * W * W, 4 * B * H * N * N * D
    assert costs.matmul_flops == linear + attention
    assert {node.name: node.matmul_flops for node in costs.nodes if node.matmul_flops} == {
        costs.nodes[0].name: linear,
        "block.attn/MatMul_1": attention // 2,
        "block.attn/MatMul_2": attention // 2,
    }
    assert sum(count for module, count in by_module(costs).items() if module.startswith("block.attn")) == (
        costs.matmul_flops
    )


def test_fused_attention_counts_like_the_written_out_one():
    node = helper.make_node(
        "MultiHeadAttention", ["q", "k", "v"], ["o"], "block.attn/MHA", domain="com.microsoft", num_heads=H
    )
    after = helper.make_node("MatMul", ["o", "w"], ["y"], name="block.attn.to_out/MatMul")
    dims = {"q": ["batch", N, W], "k": ["batch", 7, W], "v": ["batch", 7, W]}
    costs = graph_costs(model([node, after], dims, "y", [("w", (W, W))]), {"batch": B})
    assert by_module(costs) == {"block.attn": 4 * B * N * 7 * W, "block.attn.to_out": 2 * B * N * W * W}


@pytest.mark.parametrize("variant", ["latte", "cogvideox", "wan", "animatediff"])
def test_products_are_those_that_pytorch_counts(exported, variant):
    subject = exported(variant)
    # The counter knows no operator of CPU attention; without a device, attention is products that it counts.
    denoiser = copy.deepcopy(subject.denoiser).to("meta")
    for batch in (1, 3):
        inputs = synthetic(denoiser, variant, batch)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            denoiser(**inputs)
        costs = graph_costs(subject.result.path, {"batch": batch})
        assert costs.matmul_flops == counter.get_total_flops()
        sites = [site.name for site in family_of(subject.denoiser).find_sites(subject.denoiser)]
        of_modules = by_module(costs)
        for site in sites:
            assert sum(flops for module, flops in of_modules.items() if f"{module}.".startswith(f"{site}.")) > 0


def test_products_allow_the_dense_over_the_pruned_ones():
    assert matmuls_allow(300, 100) == 3.0
    with pytest.raises(InputError, match="no matrix products"):
        matmuls_allow(300, 0)


def test_what_cannot_be_counted_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'batch'.*give its size"):
        graph_costs(written_out(), {"text": 3})
    with pytest.raises(InputError, match="at least 1"):
        graph_costs(written_out(), {"batch": 0})
    (tmp_path / "g.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"run `export\(\.\.\.\)` again"):
        graph_costs(tmp_path / "g.onnx")
    rates = MachineRates("test", "cpu", 1, {"fp32": 1e6}, {})
    with pytest.raises(InputError, match="int4"):
        rates.flops_of("int4")
