"""Nodes say which module they came from."""

from __future__ import annotations

import json

import onnx
import onnx_ir as ir
import pytest

from f3prune.exporter.node_names import InheritModule, module_of
from f3prune.families import family_of


@pytest.mark.parametrize("variant", ["cogvideox", "wan", "latte"])
def test_matrix_products_are_named_after_the_layer_whose_weight_they_read(exported, variant):
    subject = exported(variant)
    graph = onnx.load(str(subject.result.path), load_external_data=False).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    modules = {name for name, _ in subject.denoiser.named_modules()}
    assert {module_of(name) for name in names} <= modules
    found = 0
    for node in graph.node:
        for value in node.input:
            layer, dot, leaf = value.removesuffix(".T").rpartition(".")
            if node.op_type in {"MatMul", "Gemm", "Conv"} and dot and leaf == "weight":
                assert module_of(node.name) == layer
                found += 1
    assert found > 10


@pytest.mark.parametrize("variant", ["cogvideox", "wan", "latte"])
def test_every_site_has_its_two_products_of_attention(exported, variant):
    subject = exported(variant)
    graph = onnx.load(str(subject.result.path), load_external_data=False).graph
    sites = [site.name for site in family_of(subject.denoiser).find_sites(subject.denoiser)]
    assert json.loads(subject.result.metadata["f3prune.sites"]) == sites
    own = [module_of(node.name) for node in graph.node if node.op_type == "MatMul"]
    for site in sites:
        assert own.count(site) == 2


def test_new_nodes_take_the_module_of_what_they_feed_else_of_what_feeds_them():
    x = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes = [ir.node("Relu", [x], name="node_a")]
    nodes.append(ir.node("Relu", [nodes[-1].outputs[0]]))
    nodes.append(ir.node("Relu", [nodes[-1].outputs[0]], name="blocks.1.attn/Relu_7"))
    nodes.append(ir.node("Relu", [nodes[-1].outputs[0]], name="node_b"))
    graph = ir.Graph([x], [nodes[-1].outputs[0]], nodes=nodes, opset_imports={"": 22})
    InheritModule()(ir.Model(graph, ir_version=10))
    assert [module_of(node.name) for node in nodes] == ["blocks.1.attn"] * 4
    assert nodes[2].name == "blocks.1.attn/Relu_7"
