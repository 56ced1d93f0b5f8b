"""Every rewrite computes what it replaces."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from diffusers import HunyuanVideo15Transformer3DModel, HunyuanVideoFramepackTransformer3DModel
from diffusers.models.attention_processor import MochiAttnProcessor2_0
from diffusers.models.transformers import transformer_anyflow, transformer_ltx2
from diffusers.models.transformers.transformer_anyflow import AnyFlowRotaryPosEmbed
from diffusers.models.transformers.transformer_cosmos import CosmosLearnablePositionalEmbed
from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15AttnProcessor2_0
from diffusers.models.upsampling import Upsample2D
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from f3prune.exporter.rewrites import (
    AttentionScale,
    BooleanMaskAsBias,
    BooleanWhere,
    CancelledTransposes,
    ConstantCast,
    DroppedContribution,
    EinsumPermutation,
    InterleavedAssignment,
    KeyTranspose,
    NoOpSqueeze,
    NormBeforeTranspose,
    SliceAssignment,
    TransposedWeights,
    framepack_masks_padding,
    hunyuan_video15_masks_padding,
    mochi_masks_padding,
    split_rotary_in_one_piece,
    traced_with_rewrites,
    upsample_any_batch,
)
from f3prune.testing import tiny_denoiser
from tests.exports import synthetic


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# -- at trace time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(8, 8), (8, 3), (1, 5), (2, 7, 8)])
@pytest.mark.parametrize("last_block", [False, True])
def test_mochi_masks_padding(lengths, last_block):
    """Attention of both kinds of block, padded text positions included."""
    attention = tiny_denoiser("mochi").transformer_blocks[-1 if last_block else 0].attn1
    batch = len(lengths)
    mask = torch.arange(8)[None, :] < torch.tensor(lengths)[:, None]
    call = {
        "hidden_states": normal(batch, 18, 32),
        "encoder_hidden_states": normal(batch, 8, 24, seed=1),
        "attention_mask": mask,
        "image_rotary_emb": (normal(18, 4, 4, seed=2).cos(), normal(18, 4, 4, seed=2).sin()),
    }
    with torch.no_grad():
        expected = attention(**call)
        with mochi_masks_padding():
            video, text = attention(**call)
    torch.testing.assert_close(video, expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(text, expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("image", [False, True])
def test_hunyuan_video15_masks_padding(image):
    """The whole denoiser, with texts of different lengths, a sample without glyphs and one without a prompt."""
    denoiser = tiny_denoiser("hunyuan_video15")
    inputs = synthetic(denoiser, "hunyuan_video15", 3)
    inputs["encoder_attention_mask_2"][1] = 0
    inputs["encoder_attention_mask"][2] = 0
    if not image:
        inputs["image_embeds"] = torch.zeros_like(inputs["image_embeds"])
    with torch.no_grad():
        expected = denoiser(**inputs)
        with hunyuan_video15_masks_padding():
            replaced = denoiser(**inputs)
    assert type(replaced) is type(expected)
    torch.testing.assert_close(replaced.sample, expected.sample, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_framepack_masks_padding(batch):
    """The whole denoiser; the original cuts a single sample's padding off."""
    denoiser = tiny_denoiser("framepack")
    inputs = synthetic(denoiser, "framepack", batch)
    with torch.no_grad():
        expected = denoiser(**inputs)
        with framepack_masks_padding():
            replaced = denoiser(**inputs)
    assert type(replaced) is type(expected)
    torch.testing.assert_close(replaced.sample, expected.sample, rtol=1e-5, atol=1e-5)


def test_framepack_stays_a_number_without_a_prompt():
    """The original cuts padding off, so that the mean over no token at all reaches nothing."""
    denoiser = tiny_denoiser("framepack")
    inputs = synthetic(denoiser, "framepack", 1)
    inputs["encoder_attention_mask"] = torch.zeros_like(inputs["encoder_attention_mask"])
    with torch.no_grad():
        expected = denoiser(**inputs).sample
        with framepack_masks_padding():
            replaced = denoiser(**inputs).sample
    assert expected.isfinite().all()
    torch.testing.assert_close(replaced, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("packed", [True, False])
def test_split_rotary_in_one_piece(packed):
    x = normal(2, 5, 24) if packed else normal(2, 3, 5, 8)
    angles = normal(2, 3, 5, 4, seed=1)
    expected = transformer_ltx2.apply_split_rotary_emb(x.clone(), (angles.cos(), angles.sin()))
    with split_rotary_in_one_piece():
        replaced = transformer_ltx2.apply_split_rotary_emb(x, (angles.cos(), angles.sin()))
    torch.testing.assert_close(replaced, expected, rtol=1e-6, atol=1e-6)


def test_rewrites_end_with_their_context():
    classes = (
        (MochiAttnProcessor2_0, "__call__"),
        (Upsample2D, "forward"),
        (CosmosLearnablePositionalEmbed, "forward"),
        (AnyFlowRotaryPosEmbed, "_build_freqs"),
        (transformer_anyflow, "apply_rotary_emb"),
        (HunyuanVideo15Transformer3DModel, "forward"),
        (HunyuanVideo15AttnProcessor2_0, "__call__"),
        (HunyuanVideoFramepackTransformer3DModel, "forward"),
        (transformer_ltx2, "apply_split_rotary_emb"),
    )
    before = [getattr(owner, name) for owner, name in classes]

    def fail() -> None:
        with traced_with_rewrites():
            assert all(getattr(owner, name) is not old for (owner, name), old in zip(classes, before, strict=True))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [getattr(owner, name) for owner, name in classes] == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 1, 1, 7), (2, 4, 5, 7), (5, 7)])
def test_boolean_mask_as_bias(dtype, shape):
    query, key, value = (normal(2, 4, n, 8, seed=n, dtype=dtype) for n in (5, 7, 7))
    value = value + (torch.arange(7) % 2 * 100)[:, None]  # what is hidden would be seen
    mask = normal(*shape, seed=3) > 0
    mask[..., 0] = True
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with BooleanMaskAsBias():
        actual = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(actual, expected)


def test_boolean_mask_leaves_other_masks_alone():
    query, bias = normal(1, 1, 4, 8), normal(4, 4, seed=1)
    for mask in (None, bias):
        expected = F.scaled_dot_product_attention(query, query, query, attn_mask=mask)
        with BooleanMaskAsBias():
            assert torch.equal(F.scaled_dot_product_attention(query, query, query, attn_mask=mask), expected)


def test_interleaved_assignment():
    def rotate(x: torch.Tensor, touch: bool) -> torch.Tensor:
        out = torch.empty_like(x)
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        out[..., 0::2] = even * 2 - odd
        if touch:
            out[..., 0] = 7.0
        out[..., 1::2] = even + odd
        return out

    for touch in (False, True):
        expected = rotate(normal(2, 3, 8), touch)
        with InterleavedAssignment():
            assert torch.equal(rotate(normal(2, 3, 8), touch), expected)


SLICES = [
    (slice(None), slice(None), slice(2, None)),
    (slice(None), slice(0, 1)),
    (slice(None), slice(1, 3)),
    (slice(1, 9),),
]


@pytest.mark.parametrize("index", SLICES)
@pytest.mark.parametrize("scalar_like", [False, True])
def test_slice_assignment(index, scalar_like):
    target = normal(3, 4, 5)
    values = normal(1, seed=1) if scalar_like else normal(*target[index].shape, seed=1)
    expected = target.clone()
    expected[index] = values
    view = target.transpose(0, 2)
    with SliceAssignment():
        target[index] = values
    assert torch.equal(target, expected)
    assert torch.equal(view, expected.transpose(0, 2))


@pytest.mark.parametrize("index", [(Ellipsis, slice(0, 2)), (0,), (slice(-2, None),), (slice(None, None, 2),)])
def test_slice_assignment_leaves_other_indices_alone(index):
    target, expected = normal(4, 4), normal(4, 4)
    expected[index] = 1.0
    with SliceAssignment():
        target[index] = torch.ones(())
    assert torch.equal(target, expected)


@pytest.mark.parametrize(
    ("options", "size"),
    [({"use_conv": True}, None), ({"use_conv": True, "name": "other"}, (5, 7)), ({"use_conv_transpose": True}, None)],
)
def test_upsample_any_batch(options, size):
    torch.manual_seed(0)
    module = Upsample2D(4, **options)
    images = normal(66, 4, 3, 4)
    expected = module(images, size)
    with upsample_any_batch():
        assert torch.equal(module(images, size), expected)


# -- on the graph ----------------------------------------------------------------------------------------------------


def graph(operator: str, inputs: list[ir.Value], constants: dict[str, np.ndarray], output: ir.Value) -> ir.Model:
    initializers = [ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in constants.items()]
    node = ir.Node("", operator, [*inputs, *initializers], outputs=[output])
    after = ir.Node("", "Identity", [output], outputs=[ir.Value(name="result", type=output.type, shape=output.shape)])
    made = ir.Graph(
        inputs, after.outputs, nodes=[node, after], initializers=initializers, opset_imports={"": 20}, name="test"
    )
    return ir.Model(made, ir_version=10)


def evaluate(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, feeds)[0])


def boolean(name: str, shape: tuple[int, ...]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape(shape))


def test_boolean_where():
    shapes = {"condition": (2, 4), "yes": (1,), "no": (2, 4)}
    inputs = [boolean(name, shape) for name, shape in shapes.items()]
    model = graph("Where", inputs, {}, boolean("chosen", (2, 4)))
    condition = np.array([[0, 0, 1, 1]] * 2, bool)
    no = np.array([[0, 1, 0, 1]] * 2, bool)
    feeds = [{"condition": condition, "yes": np.array([yes]), "no": no} for yes in (False, True)]
    expected = [evaluate(model, feed) for feed in feeds]
    assert BooleanWhere()(model).modified
    assert "Where" not in {node.op_type for node in model.graph}
    for feed, wanted in zip(feeds, expected, strict=True):
        np.testing.assert_array_equal(evaluate(model, feed), wanted)


def test_boolean_where_leaves_numbers_alone():
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([3]))
    chosen = ir.Value(name="chosen", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([3]))
    model = graph("Where", [boolean("condition", (3,)), value, value], {}, chosen)
    assert not BooleanWhere()(model).modified


@pytest.mark.parametrize(("axis", "removed"), [(1, True), (-2, True), (0, False), (2, False)])
def test_no_op_squeeze(axis, removed):
    """Axes of size 1 (0) and of unknown size (2) keep their Squeeze."""
    source = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 3, "n"]))
    squeezed = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 3, "n"]))
    model = graph("Squeeze", [source], {"axes": np.array([axis])}, squeezed)
    assert NoOpSqueeze()(model).modified == removed
    assert ("Squeeze" in {node.op_type for node in model.graph}) != removed
    if removed:
        x = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
        np.testing.assert_array_equal(evaluate(model, {"x": x}), x)


def parsed(text: str) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')


KEYS = """
test (float[batch,3,5,4] k) => (float[batch,3,4,5] y)
<int64[1] minus = {{-1}}, int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] three = {{3}}, int64[1] end = {{99}}>
{{
    s = Shape <start = 0> (k)
    b = Slice (s, zero, two)
    n = Slice (s, two, three)
    d = Slice (s, three, end)
    folded = Concat <axis = 0> (minus, n, d)
    flat = Reshape (k, folded)
    swapped = Transpose <perm = [0, 2, 1]> (flat)
    unfolded = Concat <axis = 0> ({order})
    keys = Reshape (swapped, unfolded)
    y = Identity (keys)
}}
"""


@pytest.mark.parametrize(("order", "matches"), [("b, d, n", True), ("n, d, b", False), ("b, n, d", False)])
def test_key_transpose(order, matches):
    model = parsed(KEYS.format(order=order))
    feeds = {"k": np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)}
    expected = evaluate(model, feeds)
    assert KeyTranspose()(model).modified == matches
    RemoveUnusedNodesPass()(model)
    np.testing.assert_array_equal(evaluate(model, feeds), expected)
    assert sum(node.op_type == "Reshape" for node in model.graph) == (0 if matches else 2)


SCALED = """
test (float[2,5,4] q, float[2,4,5] k) => (float[2,5,5] y)
<float s = {{0.5}}, float other = {{0.5}}>
{{
    r1 = Sqrt (s)
    r2 = Sqrt ({second})
    r3 = CastLike (r2, k)
    a = Mul (q, r1)
    b = Mul (k, r3)
    y = MatMul (a, b)
}}
"""


@pytest.mark.parametrize(("second", "matches"), [("s", True), ("other", False)])
def test_attention_scale(second, matches):
    model = parsed(SCALED.format(second=second))
    random = np.random.default_rng(0)
    feeds = {"q": random.standard_normal((2, 5, 4), np.float32), "k": random.standard_normal((2, 4, 5), np.float32)}
    expected = evaluate(model, feeds)
    assert AttentionScale()(model).modified == matches
    np.testing.assert_allclose(evaluate(model, feeds), expected, rtol=1e-5, atol=1e-6)
    if matches:
        (product,) = (node for node in model.graph if node.op_type == "MatMul")
        assert product.inputs[1].name == "k"


WEIGHTS = """
test (float[2,3] x) => (float[2,2] y, float[2,3] z)
<float[2,3] w = {1, 2, 3, 4, 5, 6}, float[2,3] v = {6, 5, 4, 3, 2, 1}>
{
    wt = Transpose <perm = [1, 0]> (w)
    a = MatMul (x, wt)
    vt = Transpose (v)
    b = MatMul (x, vt)
    y = Add (a, b)
    z = Add (x, v)
}
"""


def test_transposed_weights():
    model = parsed(WEIGHTS)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
    expected = ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, feeds)
    assert TransposedWeights()(model).modified
    assert "Transpose" not in {node.op_type for node in model.graph}
    assert set(model.graph.initializers) == {"w.T", "v.T", "v"}
    actual = ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, feeds)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("equation", "matches"), [("abc->cab", True), ("a b c -> b a c", True), ("abc->ab", False), ("aab->ab", False)]
)
def test_einsum_permutation(equation, matches):
    rank = 2 if equation.endswith("->ab") else 3
    shape = [[2, 3, 4][axis] for axis in ([2, 0, 1] if equation == "abc->cab" else [1, 0, 2])[:rank]]
    source = "float[2,2,4]" if equation.startswith("aab") else "float[2,3,4]"
    result = f"float[{','.join(map(str, shape))}]" if matches else "float[m,n]"
    model = parsed(f'test ({source} x) => ({result} y) {{ z = Einsum <equation = "{equation}"> (x) y = Identity (z) }}')
    size = (2, 2, 4) if equation.startswith("aab") else (2, 3, 4)
    feeds = {"x": np.arange(np.prod(size), dtype=np.float32).reshape(size)}
    expected = evaluate(model, feeds)
    assert EinsumPermutation()(model).modified == matches
    np.testing.assert_array_equal(evaluate(model, feeds), expected)


DROPPED = """
test (float[n, 3] x, float[{gate}] g) => (float[n, 3] y)
<float zero = {{{constant}}}, float[n, 3] zeros, float[n, 3] scaled, float[n, 3] sum>
{{ shape = Shape (x) zeros = Expand (zero, shape) scaled = Mul (g, zeros) sum = Add (x, scaled) y = Identity (sum) }}
"""


@pytest.mark.parametrize(("constant", "gate", "left"), [("0.0", "1, 3", {"Identity"}), ("0.5", "1, 3", None)])
def test_dropped_contribution(constant, gate, left):
    model = parsed(DROPPED.format(constant=constant, gate=gate))
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "g": np.full((1, 3), 7, dtype=np.float32)}
    expected = evaluate(model, feeds)
    result = DroppedContribution()(model)
    assert result.modified == (left is not None)
    if left is not None:
        used = model.graph.outputs[0].producer()
        assert used.inputs[0] is model.graph.inputs[0]
    np.testing.assert_array_equal(evaluate(model, feeds), expected)


def test_zeros_that_give_the_result_its_shape_stay():
    model = parsed(
        """test (float[1, 3] x, int64[2] s) => (float[4, 3] y)
        <float zero = {0.0}, float[4, 3] zeros, float[4, 3] sum>
        { zeros = Expand (zero, s) sum = Add (x, zeros) y = Identity (sum) }"""
    )
    assert not DroppedContribution()(model).modified


CASTS = """
test (float16[2] x) => (float16[2] y, double[2] z)
<double[2] only = {0.1, 20001.0}, double[2] kept = {0.3, 0.4}>
{
    a = Cast <to = 10> (only)
    b = Cast <to = 10> (only)
    c = Cast <to = 10> (kept)
    d = Add (a, b)
    e = Add (d, c)
    y = Add (x, e)
    z = Identity (kept)
}
"""


def test_constant_cast():
    model = parsed(CASTS)
    feeds = {"x": np.zeros(2, np.float16)}
    expected = evaluate(model, feeds)
    assert ConstantCast()(model).modified
    types = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert types == {"only": ir.DataType.FLOAT16, "kept": ir.DataType.DOUBLE}
    assert sum(node.op_type == "Cast" for node in model.graph) == 1
    np.testing.assert_array_equal(evaluate(model, feeds), expected)


NORMED = """
test (float[2, 5, 3, 4] x, float[{last}] w) => (float[{shape}] y)
<float[{shape}] t, float[{shape}] n>
{{
    t = Transpose <perm = [{order}]> (x)
    n = LayerNormalization <axis = {axis}> (t, w)
    y = Identity (n)
}}
"""


@pytest.mark.parametrize(
    ("order", "shape", "last", "axis", "matches"),
    [
        ("0, 2, 1, 3", "2, 3, 5, 4", 4, -1, True),
        ("0, 2, 1, 3", "2, 3, 5, 4", 4, 3, True),
        ("0, 1, 3, 2", "2, 5, 4, 3", 3, -1, False),
    ],
)
def test_norm_before_transpose(order, shape, last, axis, matches):
    model = parsed(NORMED.format(order=order, shape=shape, last=last, axis=axis))
    feeds = {
        "x": np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32),
        "w": np.arange(1, last + 1, dtype=np.float32),
    }
    expected = evaluate(model, feeds)
    assert NormBeforeTranspose()(model).modified == matches
    assert (next(node.op_type for node in model.graph) == "LayerNormalization") == matches
    np.testing.assert_allclose(evaluate(model, feeds), expected, atol=1e-6)


@pytest.mark.parametrize(("second", "matches"), [("2, 0, 1", True), ("1, 2, 0", False)])
def test_cancelled_transposes(second, matches):
    """The first Transpose has another reader, and stays for it."""
    shape = "2, 3, 4" if matches else "4, 2, 3"
    model = parsed(
        f"""test (float[2, 3, 4] x) => (float[{shape}] y, float[3, 4, 2] z)
        <float[3, 4, 2] a, float[{shape}] b>
        {{ a = Transpose <perm = [1, 2, 0]> (x) b = Transpose <perm = [{second}]> (a)
        y = Identity (b) z = Identity (a) }}"""
    )
    feeds = {"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}
    expected = evaluate(model, feeds)
    assert CancelledTransposes()(model).modified == matches
    assert sum(node.op_type == "Transpose" for node in model.graph) == (1 if matches else 2)
    np.testing.assert_array_equal(evaluate(model, feeds), expected)


def test_rewrites_have_one_file_each():
    from f3prune.exporter import rewrites

    files = [rewrite.__module__ for rewrite in itertools.chain(rewrites.TRACE_REWRITES, rewrites.GRAPH_REWRITES)]
    assert len(set(files)) == len(files)
