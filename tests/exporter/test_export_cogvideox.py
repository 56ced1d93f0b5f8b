"""What does not depend on the family, on the smallest one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

import f3prune.exporter._export as export_module
from f3prune.calibration import PruneConfig, calibrate, denoise_synthetic, prune_denoiser, select_masks
from f3prune.core.captured_calls import record_calls
from f3prune.core.errors import ExportError, InputError
from f3prune.core.parity import ROUNDING, parity
from f3prune.exporter import ExportConfig, export_denoiser, flatten_arguments, graph_facts
from f3prune.exporter._trace import run_denoiser
from f3prune.exporter.self_test import OrtGraph, SelfTest, self_test
from f3prune.testing import TINY_SHAPES, tiny_denoiser
from tests.exports import synthetic

QUICK = ExportConfig(self_test=False)


def files(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def instant(exported, monkeypatch):
    """The CogVideoX subject; exporting it again takes the graph from its file instead of tracing."""
    subject = exported("cogvideox")
    monkeypatch.setattr(export_module, "trace", lambda *args: None)
    monkeypatch.setattr(export_module.long_half_attention, "is_used", lambda program: False)
    monkeypatch.setattr(export_module, "to_onnx", lambda *args: ir.load(subject.result.path))
    return subject


AGAIN = """
import sys, torch
sys.path.insert(0, {here!r})
from tests.exports import synthetic
from f3prune.exporter import ExportConfig, export_denoiser
from f3prune.testing import tiny_denoiser

denoiser = tiny_denoiser("cogvideox")
export_denoiser(denoiser, synthetic(denoiser, "cogvideox", 1, seed=9), sys.argv[1], ExportConfig(self_test=False))
"""


def test_the_same_denoiser_gives_the_same_bytes(exported, tmp_path):
    """In another process, with another order of sets, from other inputs and a batch of one."""
    subject = exported("cogvideox")
    assert files(subject.result.path.parent) == ["denoiser.onnx", "denoiser.onnx.data"]
    script = AGAIN.format(here=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment, timeout=500)
    for name in files(tmp_path):
        assert (tmp_path / name).read_bytes() == (subject.result.path.parent / name).read_bytes()


def test_exporting_changes_nothing_in_the_denoiser(exported):
    subject = exported("cogvideox", dtype="fp16")
    fresh = tiny_denoiser("cogvideox")
    for name, tensor in fresh.state_dict().items():
        kept = subject.denoiser.state_dict()[name]
        assert kept.dtype == torch.float32
        assert torch.equal(kept, tensor)
    inputs = subject.inputs(2)
    with torch.no_grad():
        assert torch.equal(subject.denoiser(**inputs).sample, fresh(**inputs).sample)


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [
        ("cogvideox", "fp16"),
        ("cogvideox", "bf16"),
        pytest.param("hunyuan_video", "bf16", marks=pytest.mark.slow(reason="a second model in the same precision")),
    ],
)
def test_half_precision(exported, variant, dtype):
    subject = exported(variant, dtype=dtype)
    specs = {spec.name: spec.dtype for spec in (*subject.result.inputs, *subject.result.outputs)}
    assert specs["hidden_states"] == specs["sample"] == {"fp16": "float16", "bf16": "bfloat16"}[dtype]
    tested = subject.result.self_test
    assert tested.bound == ROUNDING[dtype]
    assert 1e-6 < tested.worst.rel_l2 < ROUNDING[dtype]
    assert tested.worst.cosine > 0.99
    weights = graph_facts(subject.result.path)
    assert weights.weight_bytes < 0.75 * exported(variant).result.facts.weight_bytes


def test_captured_inputs_are_what_the_self_test_runs(tmp_path, caplog, capfd):
    """And exporting prints, logs and warns of nothing."""
    denoiser = tiny_denoiser("cogvideox")
    inputs = synthetic(denoiser, "cogvideox", 2)

    def loop():
        for step in (900, 500, 100):
            denoiser(**{**inputs, "timestep": torch.tensor([step, step])})

    calls = [arguments for _, arguments in record_calls(denoiser, loop, 3)]
    config = ExportConfig(max_test_inputs=2)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        result = export_denoiser(denoiser, calls[0], tmp_path, config, {"source_digest": "abc"}, test_inputs=calls)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    first, second, single = (call.elements for call in result.self_test.calls)
    assert first == second == 2 * single
    assert result.metadata["f3prune.source_digest"] == "abc"
    report = result.to_json()
    assert report["file"] == "denoiser.onnx"
    assert report["self_test"]["ran_as"] == "graph"


def test_text_can_be_dynamic(tmp_path):
    denoiser = tiny_denoiser("cogvideox-rotary")
    inputs = synthetic(denoiser, "cogvideox-rotary", 2)
    result = export_denoiser(denoiser, inputs, tmp_path, ExportConfig(dynamic=("batch", "text")))
    assert {spec.name: spec.shape for spec in result.inputs}["encoder_hidden_states"] == ("batch", "text", 16)
    inputs["encoder_hidden_states"] = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    arguments = flatten_arguments(inputs)
    expected = run_denoiser(denoiser, arguments, arguments.tensors)
    assert parity(expected, OrtGraph(result.path).run(arguments.tensors)).rel_l2 < 1e-4


def test_a_pruned_denoiser_exports_with_its_record(tmp_path):
    denoiser = tiny_denoiser("cogvideox")
    shape = TINY_SHAPES["cogvideox"]
    calibration = calibrate(denoiser, lambda: denoise_synthetic(denoiser, shape, 2))
    masks = select_masks(calibration, PruneConfig(alpha=0.5, granularity="head", score="aas"))
    prune_denoiser(denoiser, masks, source_digest="dense")
    result = export_denoiser(denoiser, synthetic(denoiser, "cogvideox", 2), tmp_path)
    assert result.metadata["f3prune.alpha"] == "0.5"
    assert result.metadata["f3prune.masks_digest"] == masks.digest
    assert result.metadata["f3prune.source_digest"] == "dense"
    assert result.self_test.worst.rel_l2 < 1e-4


@pytest.mark.parametrize("step", ["save", "self_test"])
def test_an_interrupted_export_leaves_what_was_there(instant, tmp_path, monkeypatch, step):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    inputs = instant.inputs(2)
    with monkeypatch.context() as patch:
        patch.setattr(export_module, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_denoiser(instant.denoiser, inputs, tmp_path)
        assert files(tmp_path) == []
    export_denoiser(instant.denoiser, inputs, tmp_path, QUICK)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    assert sorted(before) == ["denoiser.onnx", "denoiser.onnx.data"]
    with monkeypatch.context() as patch:
        patch.setattr(export_module, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_denoiser(instant.denoiser, inputs, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_the_self_test_finds_wrong_weights(exported, tmp_path):
    subject = exported("cogvideox")
    arguments = flatten_arguments(subject.inputs(2))
    other = tiny_denoiser("cogvideox", seed=1)
    with pytest.raises(ExportError, match=r"failed on call 1: relative L2 .*, expected at most 0\.0001 for fp32"):
        self_test(subject.result.path, other, arguments, [arguments.tensors], "fp32")
    for name in ("denoiser.onnx", "denoiser.onnx.data"):
        (tmp_path / name).write_bytes((subject.result.path.parent / name).read_bytes())
    (tmp_path / "denoiser.onnx.data").write_bytes(b"short")
    with pytest.raises(ExportError, match=r"ONNX Runtime refuses denoiser\.onnx"):
        OrtGraph(tmp_path / "denoiser.onnx")


def test_a_self_test_fails_on_what_is_not_finite():
    reference = torch.tensor([[3.0, 4.0]])
    close = parity(reference, torch.tensor([[3.0, 4.5]]))
    broken = parity(reference, torch.tensor([[float("nan"), 4.0]]))
    assert SelfTest("graph", 0.1, (close,)).passed
    assert not SelfTest("graph", 0.09, (close,)).passed
    assert broken.rel_l2 == 0
    assert SelfTest("graph", 0.1, (close, broken)).worst is broken
    assert not SelfTest("graph", 0.1, (close, broken)).passed


def test_refusals(exported, tmp_path):
    subject = exported("cogvideox")
    inputs = subject.inputs(2)
    with pytest.raises(InputError, match="training mode"):
        export_denoiser(tiny_denoiser("cogvideox").train(), inputs, tmp_path)
    with pytest.raises(InputError, match="has no values"):
        export_denoiser(tiny_denoiser("cogvideox").to("meta"), inputs, tmp_path)
    with pytest.raises(ExportError, match="the inputs lack hidden_states"):
        export_denoiser(subject.denoiser, {"timestep": 3}, tmp_path)
    with pytest.raises(ExportError, match=r"torch\.export refused CogVideoXTransformer3DModel"):
        export_denoiser(subject.denoiser, {"hidden_states": inputs["hidden_states"], "timestep": 3}, tmp_path)


def test_refusals_of_what_does_not_fit(instant, tmp_path):
    inputs = instant.inputs(2)
    other = {**inputs, "attention_kwargs": {"scale": 0.5}}
    with pytest.raises(ExportError, match="capture them from the same pipeline"):
        export_denoiser(instant.denoiser, inputs, tmp_path, test_inputs=[other])
    assert files(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        export_denoiser(instant.denoiser, inputs, tmp_path / "file", QUICK)
