"""What TensorRT-RTX makes of attention, read from real builds on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from f3prune.engines import BuildConfig
from f3prune.engines.backends.layer_information import FusedAttention, Layer, attentions_of, fused_attention

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
# Polygraphy gives every build a timing cache.
pytestmark = pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
SIZE = ["batch", 2, 1024, 64]


def attention_graph(path: Path, element: int, kind: str = "pattern", upcast: bool = False) -> Path:
    """``softmax(q @ k.T / 8) @ v``, ``b h n d``; kind ``between`` has a Sin where no kernel expects one."""
    dtype = helper.tensor_dtype_to_np_dtype(element)
    node = helper.make_node
    names = ["q", "k", "v"]
    nodes = []
    if upcast:
        nodes = [node("Cast", [name], [f"{name}32"], name=f"cast/{name}", to=TensorProto.FLOAT) for name in names]
        names = [f"{name}32" for name in names]
    q, k, v = names
    out = "out32" if upcast else "out"
    if kind == "operator":
        nodes.append(node("Attention", names, [out], name="site/attention", scale=0.125))
    else:
        weights = "odd" if kind == "between" else "probabilities"
        nodes += [
            node("Mul", [q, "scale"], ["scaled"], name="site/scale"),
            node("Transpose", [k], ["keys"], name="site/keys", perm=[0, 1, 3, 2]),
            node("MatMul", ["scaled", "keys"], ["scores"], name="site/scores"),
            node("Softmax", ["scores"], ["probabilities"], name="site/softmax", axis=-1),
            *([node("Sin", ["probabilities"], ["odd"], name="site/sin")] if kind == "between" else []),
            node("MatMul", [weights, v], [out], name="site/values"),
        ]
    if upcast:
        nodes.append(node("Cast", [out], ["out"], name="cast/out", to=element))
    values = [helper.make_tensor_value_info(name, element, SIZE) for name in ("q", "k", "v", "out")]
    scale = numpy_helper.from_array(np.array(0.125, np.float32 if upcast else dtype), "scale")
    graph = helper.make_graph(nodes, "g", values[:3], values[3:], [] if kind == "operator" else [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), str(path))
    return path


def facts_of(path: Path, **options: Any) -> dict[str, Any]:
    """What a build in this process says; a worker's start would take longer than the build."""
    from f3prune.engines.backends.tensorrt_build import build_plan

    shapes = {name: [[least, *SIZE[1:]] for least in (1, 2, 2)] for name in "qkv"}
    config = BuildConfig("tensorrt-rtx", **options).to_json()
    job = {"onnx": str(path), "output": str(path.with_suffix(".engine")), "config": config, "profiles": shapes}
    return build_plan(job, lambda fraction, phase: None)


@pytest.mark.parametrize(
    ("element", "kind", "upcast", "fused"),
    [
        (TensorProto.BFLOAT16, "pattern", False, 1),
        (TensorProto.FLOAT16, "operator", False, 1),
        (TensorProto.FLOAT16, "between", False, 0),
        # Scores in fp32 are held whole, unless the operator says what they are.
        (TensorProto.FLOAT, "pattern", False, 0),
        (TensorProto.FLOAT16, "pattern", True, 0),
        (TensorProto.FLOAT16, "operator", True, 1),
    ],
)
def test_the_engine_says_which_attention_is_one_kernel(
    element: int, kind: str, upcast: bool, fused: int, tmp_path: Path
) -> None:
    facts = facts_of(attention_graph(tmp_path / "g.onnx", element, kind, upcast))
    assert facts["attention_fused"] == fused
    assert facts["attention_unfused"] == ([] if fused else ["site/softmax"])
    scores = 2 * 2 * 1024 * 1024 * (4 if upcast or element == TensorProto.FLOAT else 2)
    if kind != "operator":
        # Seen another way: an engine that keeps the scores of both samples has memory for them.
        assert (facts["scratch_bytes"] < scores) if fused else (facts["scratch_bytes"] >= scores)


def test_an_attention_that_no_layer_names_is_not_called_fused(tmp_path: Path) -> None:
    attentions = attentions_of(attention_graph(tmp_path / "g.onnx", TensorProto.FLOAT16))
    assert attentions == {"site/softmax": "site/values"}
    whole = Layer("_gemm_mha_v2_0", frozenset({"site/scores", "site/softmax", "site/values"}))
    part = Layer("__myl_MaxrSubExpSumDiv_0", frozenset({"site/softmax"}))
    assert fused_attention([whole], attentions) == FusedAttention(("site/softmax",), ())
    for layers in ([part, Layer("gemm", frozenset({"site/values"}))], []):
        assert fused_attention(layers, attentions) == FusedAttention((), ("site/softmax",))
