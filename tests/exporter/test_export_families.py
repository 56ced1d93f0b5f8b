"""Every family exports, and its file computes what PyTorch computes."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from f3prune.core.parity import parity
from f3prune.exporter import flatten_arguments
from f3prune.exporter._trace import run_whole
from f3prune.exporter.self_test import OrtGraph
from f3prune.families import family_of
from f3prune.testing import TINY_SHAPES
from tests.exports import EXPORTED_DENSE

UNETS = {"animatediff", "modelscope", "svd", "i2vgen_xl", "tune_a_video"}


@pytest.mark.parametrize("variant", EXPORTED_DENSE)
def test_names_are_those_of_the_forward(exported, variant):
    subject = exported(variant)
    forward = inspect.signature(type(subject.denoiser).forward).parameters
    names = [spec.name for spec in subject.result.inputs]
    assert names == list(flatten_arguments(subject.inputs(2)).tensors)
    assert {name.partition(".")[0] for name in names} <= set(forward)
    sample, *others = (spec.name for spec in subject.result.outputs)
    assert sample == ("out_sample" if variant in UNETS else "sample")
    assert others == list(family_of(subject.denoiser).outputs[1:])


@pytest.mark.parametrize("variant", EXPORTED_DENSE)
def test_batch_is_symbolic_and_the_rest_is_fixed(exported, variant):
    subject = exported(variant)
    shapes = {spec.name: spec.shape for spec in subject.result.inputs}
    frames = TINY_SHAPES[variant].frames
    for name, tensor in flatten_arguments(subject.inputs(2)).tensors.items():
        batched = {"timestep", "sigma", "guidance", "fps"} if tensor.ndim == 1 else {name}
        batched -= set(family_of(subject.denoiser).not_batched)
        # Of nested arguments, those of text have a batch: rotary tables have none.
        owner, nested, _ = name.partition(".")
        if tensor.ndim and (not nested or owner == "encoder_hidden_states") and name in batched:
            first = "batch" if tensor.shape[0] == 2 else f"{frames}*batch"
            assert shapes[name] == (first, *tensor.shape[1:])
        else:
            assert shapes[name] == tuple(tensor.shape)
    for output in subject.result.outputs:
        assert output.shape[0] == "batch"
        assert all(isinstance(size, int) for size in output.shape[1:])


@pytest.mark.parametrize("variant", EXPORTED_DENSE)
def test_file_is_valid_and_has_its_weights_beside_it(exported, variant):
    subject = exported(variant)
    onnx.checker.check_model(str(subject.result.path))
    model = onnx.load(str(subject.result.path), load_external_data=False)
    outside = {entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "location"}
    assert outside == {"denoiser.onnx.data"}
    weights = {tensor.name for tensor in model.graph.initializer}
    trained = {name for name, p in subject.denoiser.named_parameters() if p.numel() > 64}
    assert len(trained & {name.removesuffix(".T") for name in weights}) > 0.9 * len(trained)
    used = {name for node in model.graph.node for name in node.input}
    assert weights <= used
    assert not any(node.domain for node in model.graph.node)
    assert not model.functions


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", EXPORTED_DENSE)
def test_onnxruntime_agrees_with_pytorch_at_other_batch_sizes(exported, variant, batch):
    subject = exported(variant)
    arguments = flatten_arguments(subject.inputs(batch, seed=batch))
    answers = run_whole(subject.denoiser, arguments, arguments.tensors)
    for expected, actual in zip(
        answers, OrtGraph(subject.result.path).run_all(arguments.tensors).values(), strict=True
    ):
        assert actual.shape == expected.shape
        assert parity(expected, actual).rel_l2 < 1e-4


@pytest.mark.parametrize("variant", EXPORTED_DENSE)
def test_self_test_and_metadata_say_what_was_exported(exported, variant):
    subject = exported(variant)
    tested = subject.result.self_test
    assert tested is not None
    assert tested.ran_as == "graph"
    outputs = len(subject.result.outputs)
    elements = [call.elements for call in tested.calls]
    assert elements[:outputs] == [2 * single for single in elements[outputs:]]
    assert tested.worst.rel_l2 < 1e-4
    assert tested.worst.cosine > 0.999999
    model = onnx.load(str(subject.result.path), load_external_data=False)
    properties = {item.key: item.value for item in model.metadata_props}
    assert properties == dict(subject.result.metadata)
    family = family_of(subject.denoiser)
    assert properties["f3prune.family"] == family.name
    assert properties["f3prune.dtype"] == "fp32"
    grid = family.token_grid(subject.denoiser, subject.inputs(2))
    assert json.loads(properties["f3prune.grid"]) == {
        "frames": grid.frames,
        "tokens_per_frame": grid.tokens_per_frame,
    }
    assert "f3prune.alpha" not in properties


@pytest.mark.parametrize("variant", EXPORTED_DENSE)
def test_no_operator_that_backends_refuse(exported, variant):
    operators = exported(variant).result.facts.operators
    assert not {"NonZero", "If", "Loop", "SequenceAt", "IsNaN"} & set(operators)
    # HunyuanVideo and Framepack fix one column of their text mask; nothing scatters into queries or keys.
    assert operators.get("ScatterND", 0) <= (1 if variant in {"hunyuan_video", "framepack"} else 0)


def test_nothing_in_the_file_tells_where_it_was_made(exported):
    content = exported("cogvideox").result.path.read_bytes()
    for trace in (str(Path.cwd()), str(Path(sys.prefix)), "site-packages", ".py", "pkg.torch"):
        assert trace.encode() not in content


def test_constants_are_recorded(exported):
    subject = exported("ltx")
    expected = {"num_frames": 3, "height": 2, "width": 3, "rope_interpolation_scale": [8 / 25, 32, 32]}
    assert subject.result.constants == expected
    assert json.loads(subject.result.metadata["f3prune.constants"]) == expected


@pytest.mark.parametrize("variant", EXPORTED_DENSE)
def test_tensorrt_rtx_parses_it(exported, variant):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    result = exported(variant).result
    script = Path(__file__).with_name("parse_with_tensorrt_rtx.py")
    command = [sys.executable, str(script), str(result.path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)
    said = json.loads(answer.stdout.splitlines()[-1])
    assert said["parsed"], said["errors"]
    assert said["inputs"] == [spec.name for spec in result.inputs]
    assert said["outputs"] == [spec.name for spec in result.outputs]
