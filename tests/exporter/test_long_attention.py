"""fp16 attention over more keys than fp16 can count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto

from f3prune.engines import BuildConfig
from f3prune.exporter import ExportConfig, export_denoiser
from f3prune.exporter.rewrites.trace import long_half_attention
from f3prune.families import LatentShape, family_of

pytestmark = pytest.mark.slow(reason="exports a transformer, and builds an engine of it")


@pytest.fixture(scope="module")
def wan() -> tuple[Any, dict[str, Any]]:
    """One layer of Wan with heads that TensorRT has a kernel for; 96 video tokens, 3 of text."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 64, "num_layers": 1, "rope_max_seq_len": 32}
    channels = {"in_channels": 4, "out_channels": 4, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32}
    denoiser = WanTransformer3DModel(**sizes, **channels).eval()
    generator = torch.Generator().manual_seed(0)
    inputs = family_of(denoiser).synthetic_inputs(denoiser, LatentShape(3, 8, 16), 2, generator)
    return denoiser, inputs


def casts_around_attention(path: Path) -> tuple[int, list[list[int]]]:
    """The opset, and for every Attention what its query, key, value and output are cast to (0: not cast)."""
    model = onnx.load(str(path), load_external_data=False)
    made = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type == "Attention":
            before = [made.get(name) for name in node.input[:3]]
            after = next(reader for reader in model.graph.node if node.output[0] in reader.input)
            casts = [part if part is not None and part.op_type == "Cast" else None for part in (*before, after)]
            found.append([0 if cast is None else onnx.helper.get_node_attr_value(cast, "to") for cast in casts])
    return next(entry.version for entry in model.opset_import if not entry.domain), found


def test_fp16_sums_in_fp32_above_the_limit(
    wan: tuple[Any, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser, inputs = wan
    assert torch.finfo(torch.float16).max == long_half_attention.MOST_KEYS
    monkeypatch.setattr(long_half_attention, "MOST_KEYS", 95)
    # The self-test holds the graph against PyTorch in fp16.
    made = export_denoiser(denoiser, inputs, tmp_path / "long", ExportConfig("fp16"))
    wide, half = TensorProto.FLOAT, TensorProto.FLOAT16
    opset, (own, text) = casts_around_attention(made.path)
    assert opset == 23
    assert own == [wide, wide, wide, half]
    # Attention to the text has few keys.
    assert text[:3] == [0, 0, 0]

    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from f3prune.engines.backends.tensorrt_build import build_plan

    profiles = {spec.name: [list(spec.resolve({"batch": 2}) or ())] * 3 for spec in made.inputs}
    job = {"onnx": str(made.path), "output": str(tmp_path / "e"), "profiles": profiles}
    with pytest.warns(DeprecationWarning, match="Timing cache"):
        facts = build_plan(job | {"config": BuildConfig("tensorrt-rtx").to_json()}, lambda fraction, phase: None)
    assert (facts["attention_fused"], facts["attention_unfused"]) == (2, [])


@pytest.mark.parametrize(("dtype", "keys"), [("fp16", 96), ("bf16", 95)])
def test_up_to_the_limit_and_in_bf16_nothing_changes(
    dtype: Any, keys: int, wan: tuple[Any, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser, inputs = wan
    monkeypatch.setattr(long_half_attention, "MOST_KEYS", keys)
    path = export_denoiser(denoiser, inputs, tmp_path, ExportConfig(dtype, self_test=False)).path
    assert casts_around_attention(path) == (22, [])
