"""Attention in one operator of ONNX Runtime: the same values, no score matrix, and nothing else touched."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx.shape_inference
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from f3prune.core.errors import InputError
from f3prune.engines import BuildConfig, build_engine
from f3prune.engines.rewrites import FusedAttention, rewrite_for_onnx_runtime


def attention(batch, heads, queries, keys, dim, mask=None, inner=False, scale=0.25):
    """An attention as the exporter writes it, inputs ``b h n d`` or (``inner``) ``b n h d``; mask ``b 1 q k``."""
    nodes, names = [], {}
    for name in ("q", "k", "v"):
        names[name] = name
        if inner:
            nodes.append(helper.make_node("Transpose", [name], [f"{name}_h"], perm=[0, 2, 1, 3]))
            names[name] = f"{name}_h"
    nodes += [
        helper.make_node("Transpose", [names["k"]], ["k_t"], perm=[0, 1, 3, 2]),
        helper.make_node("Mul", [names["q"], "s"], ["q_s"]),
        helper.make_node("MatMul", ["q_s", "k_t"], ["scores"]),
    ]
    if mask is not None:
        nodes.append(helper.make_node("Add", ["scores", "mask"], ["masked"]))
    nodes += [
        helper.make_node("Softmax", ["scores" if mask is None else "masked"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", names["v"]], ["o_h"]),
    ]
    nodes.append(helper.make_node("Transpose", ["o_h"], ["o_t"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["o_t" if inner else "o_h", "flat"], ["o"]))

    def spec(name, tokens):
        shape = ["batch", tokens, heads, dim] if inner else ["batch", heads, tokens, dim]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [spec("q", queries), spec("k", keys), spec("v", keys)]
    if mask is not None:
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, list(mask.shape)))
    known = [
        helper.make_tensor_value_info(names[name], TensorProto.FLOAT, ["batch", heads, tokens, dim])
        for name, tokens in (("q", queries), ("k", keys), ("v", keys))
        if inner
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, ["batch", queries * heads * dim])],
        [
            numpy_helper.from_array(np.array(scale, np.float32), "s"),
            numpy_helper.from_array(np.array([0, queries * heads * dim], np.int64), "flat"),
        ],
        value_info=known,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def fused(model):
    """The model rewritten, and whether anything changed."""
    found = ir.serde.deserialize_model(model)
    modified = FusedAttention()(found).modified
    return ir.serde.serialize_model(found), modified


def run(model, feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def operators(model):
    return [node.op_type for node in model.graph.node]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_same_values_whatever_the_shape(data):
    batch, heads, dim = (data.draw(st.integers(1, 3)) for _ in range(3))
    queries, keys = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 40))
    inner, masked = data.draw(st.booleans()), data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    mask = None
    if masked:
        mask = np.where(rng.random((batch, 1, 1, keys)) < 0.5, -np.inf, 0).astype(np.float32)
        mask[..., 0] = 0
    model = attention(batch, heads, queries, keys, dim, mask, inner)
    shape = (lambda n: (batch, n, heads, dim)) if inner else (lambda n: (batch, heads, n, dim))
    feeds = {
        name: rng.standard_normal(shape(n)).astype(np.float32)
        for name, n in zip("qkv", (queries, keys, keys), strict=True)
    }
    if mask is not None:
        feeds["mask"] = mask
    changed, modified = fused(model)
    assert modified
    assert "Softmax" not in operators(changed)
    np.testing.assert_allclose(run(changed, feeds), run(model, feeds), atol=2e-6)


def test_keys_that_the_whole_batch_shares_are_left_alone():
    model = attention(2, 2, 4, 5, 8)
    for shared in model.graph.input[1:3]:
        shared.type.tensor_type.shape.dim[0].dim_value = 1
    changed, modified = fused(model)
    assert not modified
    feeds = {name: np.ones((1 if name in "kv" else 2, 2, 4 if name == "q" else 5, 8), np.float32) for name in "qkv"}
    assert run(changed, feeds).shape == (2, 4 * 2 * 8)


LAID_SIDE_BY_SIDE = """
<ir_version: 9, opset_import: ["" : 20]>
near_and_far (float[batch, 9, 2, 4] q_all, float[batch, 9, 2, 4] k_all, float[batch, 4, 2, 4] k_far,
              float[batch, 10, 2, 4] v) => (float[batch, 48] o)
<int64[1] three = {3}, int64[1] end = {9223372036854775807}, int64[1] one = {1}, int64[4] tokens = {-1, 6, 2, 4},
 int64[2] flat = {0, 48}, float s = {0.25}, float[10] row = {ROW}, int64[3] front = {0, 1, 2}>
{
  q_cut = Slice (q_all, three, end, one, one)
  q = Reshape (q_cut, tokens)
  k_near = Slice (k_all, three, end, one, one)
  k = Concat <axis = 1> (k_near, k_far)
  q_h = Transpose <perm = [0, 2, 1, 3]> (q)
  k_h = Transpose <perm = [0, 2, 1, 3]> (k)
  v_h = Transpose <perm = [0, 2, 1, 3]> (v)
  mask = Unsqueeze (row, front)
  k_t = Transpose <perm = [0, 1, 3, 2]> (k_h)
  q_s = Mul (q_h, s)
  scores = MatMul (q_s, k_t)
  masked = Add (scores, mask)
  p = Softmax <axis = -1> (masked)
  o_h = MatMul (p, v_h)
  o_t = Transpose <perm = [0, 2, 1, 3]> (o_h)
  o = Reshape (o_t, flat)
}
"""
"""Keys of which six were cut out of nine, and four more beside them; what is added to each key's scores is ``ROW``."""


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ([0.0] * 6 + [2.5] * 4, {"Pad": 2, "Slice": 0, "Expand": 0}),
        ([0.0] * 6 + [2.5, 2.5, 1.5, 1.5], {"Pad": 2, "Slice": 0, "Expand": 1}),
        ([0.0, -1e4, 0.5, 0.0, 1.0, 0.0] + [-1e4] * 4, {"Pad": 2, "Slice": 1, "Expand": 1}),
    ],
    ids=["even patches", "patches cut off by the border", "hidden keys"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_keys_laid_side_by_side_are_copied_once(row, wanted, batch):
    """Even parts of the row are padding, which also does the cutting; only uneven ones are written out."""
    text = LAID_SIDE_BY_SIDE.replace("ROW", ", ".join(str(value) for value in row))
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    rng = np.random.default_rng(0)
    feeds = {
        spec.name: rng.standard_normal([batch, *(size.dim_value for size in spec.type.tensor_type.shape.dim[1:])])
        for spec in model.graph.input
    }
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    changed, modified = fused(model)
    assert modified
    found = operators(changed)
    assert {name: found.count(name) for name in wanted} == wanted | {"Pad": 1 + sum(part_is_even(row))}
    np.testing.assert_allclose(run(changed, feeds), run(model, feeds), atol=2e-6)


def part_is_even(row):
    return [len(set(part)) == 1 for part in (row[:6], row[6:])]


def test_heads_that_were_moved_for_the_attention_are_not_moved_any_more():
    changed, _ = fused(attention(1, 2, 8, 8, 4, inner=True))
    assert "Transpose" not in operators(changed)


def test_a_mask_of_its_own_for_every_query_is_left_alone():
    model = attention(1, 2, 8, 8, 4, np.zeros((1, 1, 8, 8), np.float32))
    changed, modified = fused(model)
    assert not modified
    assert operators(changed) == operators(model)


def test_one_query_is_left_alone():
    assert not fused(attention(1, 2, 1, 8, 4))[1]


def test_no_score_matrix_is_held(tmp_path):
    """At 6000 tokens the three operators need two matrices of 144 MB and the fused one none."""
    import subprocess
    import sys

    model = attention(1, 1, 6000, 6000, 8)
    (tmp_path / "plain.onnx").write_bytes(model.SerializeToString())
    found = rewrite_for_onnx_runtime(tmp_path / "plain.onnx", tmp_path / "fused.onnx", 192)
    assert (found.fused, found.unfused) == (1, ())
    code = (
        "import sys, numpy, onnxruntime;"
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]);"
        "s = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']);"
        "x = numpy.ones((1, 1, 6000, 8), numpy.float32);"
        "before = peak();"
        "s.run(None, {'q': x, 'k': x, 'v': x});"
        "print(peak() - before)"
    )
    grown = {}  # KiB; a process's own high-water mark, which getrusage would mix with its parent's
    for name in ("plain", "fused"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{name}.onnx")], capture_output=True, text=True, check=True
        )
        grown[name] = int(done.stdout)
    assert grown["plain"] > 100_000
    assert grown["fused"] < 30_000


def test_few_keys_stay_in_three_operators():
    model = ir.serde.deserialize_model(attention(1, 2, 8, 8, 4))
    assert not FusedAttention(9)(model).modified
    assert FusedAttention(8)(model).modified


@pytest.mark.parametrize(
    ("option", "names"), [(7, [f"FusedAttention/{FusedAttention.VERSION} from 7 keys"]), (None, [])]
)
def test_an_engine_says_what_was_rewritten(option, names, make_graph, tmp_path):
    record = build_engine(make_graph(), tmp_path / "engine", BuildConfig(fused_attention=option))
    assert record.flags["rewrites"] == names


def test_no_keys_at_all_are_no_number():
    with pytest.raises(InputError, match="number of keys"):
        BuildConfig(fused_attention=0)
