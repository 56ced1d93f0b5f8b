"""Costs of a graph: by hand, against PyTorch's counter, and against the formula of a whole denoiser."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.utils.flop_counter import FlopCounterMode

from f3prune.bench.costs.ceiling import ceiling, matmuls_allow, share_of_allowed
from f3prune.bench.costs.machine import MachineRates
from f3prune.core.errors import ArtifactError, InputError
from f3prune.exporter.costs import graph_costs
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


def test_hand_computed_attention():
    costs = graph_costs(written_out(), {"batch": B}, ["block.attn"])
    linear, attention, score = 2 * B * N * W * W, 4 * B * H * N * N * D, 4 * B * H * N * N
    assert costs.matmul_flops == linear + attention
    assert costs.by_kind["site projections"].matmul_flops == linear
    assert costs.by_kind["site attention"].matmul_flops == attention
    assert costs.by_kind["rest"].matmul_flops == 0
    assert costs.by_site["block.attn"].matmul_flops == costs.matmul_flops
    # The first product writes the scores, softmax reads and writes, the second product reads.
    assert costs.total.score_bytes == 4 * score
    product = costs.nodes[0].cost
    assert (product.flops, product.bytes) == (linear, 4 * (2 * B * N * W + W * W))
    assert costs.by_operator["Softmax"].flops == 5 * B * H * N * N
    assert costs.to_dict()["total"]["matmul_flops"] == costs.matmul_flops


def test_fused_attention_counts_like_the_written_out_one_without_its_scores():
    node = helper.make_node(
        "MultiHeadAttention", ["q", "k", "v"], ["o"], "block.attn/MHA", domain="com.microsoft", num_heads=H
    )
    after = helper.make_node("MatMul", ["o", "w"], ["y"], name="block.attn.to_out/MatMul")
    dims = {"q": ["batch", N, W], "k": ["batch", 7, W], "v": ["batch", 7, W]}
    costs = graph_costs(model([node, after], dims, "y", [("w", (W, W))]), {"batch": B}, ["block.attn"])
    assert costs.by_operator["MultiHeadAttention"].matmul_flops == 4 * B * N * 7 * W
    assert costs.by_operator["MultiHeadAttention"].bytes == 4 * B * W * (2 * N + 2 * 7)
    assert costs.total.score_bytes == 0
    assert costs.by_kind["site projections"].matmul_flops == 2 * B * N * W * W


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
        assert list(costs.by_site) == [*sites, "rest"]
        assert all(costs.by_site[site].matmul_flops > 0 for site in sites)
        assert sum(cost.flops for cost in costs.by_kind.values()) == costs.total.flops


def test_ceiling_is_the_arithmetic_over_the_rates():
    costs = graph_costs(written_out(), {"batch": B}, ["block.attn"])
    rates = MachineRates("test", "cpu", 1, {"fp32": 1e6}, 1e30, 1e30, {})
    found = ceiling(costs, rates, seconds=1.0)
    assert found.matmul_seconds == costs.matmul_flops / 1e6 == found.matmul_share
    assert found.roofline_seconds == pytest.approx(costs.total.flops / 1e6)
    slow = MachineRates("test", "cpu", 1, {"fp32": 1e30}, 1e6, 1e6, {})
    fused, written = ceiling(costs, slow), ceiling(costs, slow, fused_attention=False)
    assert written.roofline_seconds == pytest.approx(costs.total.bytes / 1e6)
    assert fused.roofline_seconds == pytest.approx((costs.total.bytes - costs.total.score_bytes) / 1e6)
    assert fused.roofline_share is None
    assert share_of_allowed(2.0, matmuls_allow(300, 100)) == pytest.approx(2 / 3)
    assert MachineRates.from_dict(rates.to_dict()) == rates


def test_what_cannot_be_counted_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'batch'.*give its size"):
        graph_costs(written_out(), {"text": 3})
    with pytest.raises(InputError, match="at least 1"):
        graph_costs(written_out(), {"batch": 0})
    (tmp_path / "g.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="export it again"):
        graph_costs(tmp_path / "g.onnx")
    rates = MachineRates("test", "cpu", 1, {"fp32": 1e6}, 1e6, 1e6, {})
    with pytest.raises(InputError, match="int4"):
        rates.flops_of("int4")
    with pytest.raises(InputError, match="positive"):
        ceiling(graph_costs(written_out(), {"batch": 1}), rates, 0.0)
