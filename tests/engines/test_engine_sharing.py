"""Engines of several stages with one file of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from f3prune.core.errors import ArtifactError, InputError
from f3prune.engines import BuildConfig, build_engine, open_session, share_weights

GraphMaker = Callable[..., Path]
INPUTS = {"hidden_states": torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))}


def sample_of(directory: Path) -> torch.Tensor:
    with open_session(directory, "cpu") as session:
        return session.run(INPUTS)["sample"]


def test_engines_share_one_file_and_compute_the_same(make_graph: GraphMaker, tmp_path: Path) -> None:
    stages = []
    for stage, seed in enumerate((0, 1, 0)):
        stages.append(tmp_path / f"stage-{stage}")
        build_engine(make_graph(f"onnx-{stage}", seed), stages[-1])
    before = [sample_of(stage) for stage in stages]
    share_weights(stages)
    data = [(stage / "denoiser.onnx.data").stat() for stage in stages]
    assert len({status.st_ino for status in data}) == 1
    # Two distinct weights of 8 x 8, as they are and packed: the third engine adds nothing.
    packed = data[0].st_size - 2 * 256
    assert 2 * 256 <= packed <= 2 * 1024
    for stage, expected in zip(stages, before, strict=True):
        assert torch.equal(sample_of(stage), expected)
    assert not torch.equal(before[0], before[1])
    for number, stage in enumerate(stages):
        assert build_engine(tmp_path / f"onnx-{number}" / "denoiser.onnx", stage).origin == "kept"


def test_a_processor_that_packs_otherwise_packs_for_itself(make_graph: GraphMaker, tmp_path: Path) -> None:
    """The name of packed weights has a hash of what this processor packed: under another name they are not used."""
    build_engine(make_graph(), tmp_path / "engine")
    expected = sample_of(tmp_path / "engine")
    share_weights([tmp_path / "engine"])
    path = tmp_path / "engine" / "denoiser.onnx"
    model = onnx.load(str(path), load_external_data=False)
    packed = [item for tensor in model.graph.initializer for item in tensor.external_data if "prepacked" in item.key]
    assert packed
    data = bytearray(path.with_name("denoiser.onnx.data").read_bytes())
    for item in packed:
        kernel, blob = item.value.split("|")
        offset, size = map(int, blob.split(";")[:2])
        data[offset : offset + size] = bytes(size)
        item.value = f"{kernel[:-1]}{(int(kernel[-1]) + 1) % 10}|{blob}"
    other = tmp_path / "other"
    other.mkdir()
    onnx.save(model, str(other / "denoiser.onnx"))
    (other / "denoiser.onnx.data").write_bytes(data)
    session = onnxruntime.InferenceSession(str(other / "denoiser.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in INPUTS.items()})
    assert np.array_equal(found, expected.numpy())


def test_an_altered_shared_file_is_refused(make_graph: GraphMaker, tmp_path: Path) -> None:
    stages = [tmp_path / "a", tmp_path / "b"]
    for stage in stages:
        build_engine(make_graph(), stage)
    share_weights(stages)
    with open(stages[0] / "denoiser.onnx.data", "r+b") as stream:
        stream.write(b"\0\1\2\3")
    for stage in stages:
        with pytest.raises(ArtifactError, match="was altered"):
            sample_of(stage)


def test_engines_without_a_file_of_weights_are_refused(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine", BuildConfig(backend="tensorrt-rtx"))
    with pytest.raises(InputError, match="an engine of tensorrt-rtx"):
        share_weights([tmp_path / "engine"])
