from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from f3prune.core.atomic_files import sha256_file
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.tensors import TensorSpec, dimension_of
from f3prune.engines._graph import read_graph
from f3prune.engines.session import bind_shapes

GraphMaker = Callable[..., Path]


def test_a_graph_is_hashed_with_its_weights(make_graph: GraphMaker) -> None:
    graph = read_graph(make_graph())
    assert graph.sha256 == sha256_file(graph.path)
    assert graph.weights == {"denoiser.onnx.data": sha256_file(graph.path.with_name("denoiser.onnx.data"))}
    assert graph.inputs == (TensorSpec("hidden_states", "float32", ("batch", 4, 8)),)
    assert (graph.dtype, graph.masks_digest, graph.constants) == ("fp32", "a" * 64, {})


def test_two_models_may_share_a_graph_but_not_their_weights(make_graph: GraphMaker) -> None:
    first, second = read_graph(make_graph("one", seed=0)), read_graph(make_graph("two", seed=1))
    assert first.sha256 == second.sha256
    assert first.weights != second.weights


def test_a_missing_graph_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run `export\(\.\.\.\)` first"):
        read_graph(tmp_path / "denoiser.onnx")


def test_a_graph_cut_short_is_refused(make_graph: GraphMaker) -> None:
    path = make_graph()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ArtifactError, match="cut short"):
        read_graph(path)


def test_an_empty_file_is_refused(make_graph: GraphMaker) -> None:
    path = make_graph()
    os.truncate(path, 0)
    with pytest.raises(ArtifactError, match="empty graph"):
        read_graph(path)


def test_weights_cut_short_are_refused(make_graph: GraphMaker) -> None:
    path = make_graph()
    os.truncate(path.with_name("denoiser.onnx.data"), 100)
    with pytest.raises(ArtifactError, match=r"has 100 bytes, but denoiser\.onnx needs 256"):
        read_graph(path)


def test_missing_weights_are_named(make_graph: GraphMaker) -> None:
    path = make_graph()
    path.with_name("denoiser.onnx.data").unlink()
    with pytest.raises(ArtifactError, match=r"denoiser\.onnx\.data, which is missing"):
        read_graph(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd"])
def test_weights_outside_the_directory_are_refused(make_graph: GraphMaker, location: str) -> None:
    path = make_graph()
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="outside its directory"):
        read_graph(path)


def test_constants_must_be_an_object(make_graph: GraphMaker) -> None:
    for text in ("[1]", "{"):
        with pytest.raises(ArtifactError, match="constants"):
            _ = read_graph(make_graph(constants=text)).constants


@pytest.mark.parametrize(
    ("text", "expected"), [("batch", (1, "batch")), ("3*batch", (3, "batch")), ("batch*6", (6, "batch"))]
)
def test_symbolic_dimensions(text: str, expected: tuple[int, str]) -> None:
    assert dimension_of(text) == expected


@pytest.mark.parametrize("text", ["batch + 1", "a*b", "3", ""])
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="dimension"):
        dimension_of(text)


SPECS = (TensorSpec("x", "float32", ("batch", 4)), TensorSpec("y", "int64", ("3*batch",)))


def test_shapes_bind_symbols() -> None:
    inputs = {"x": torch.zeros(2, 4), "y": torch.zeros(6, dtype=torch.int64)}
    assert bind_shapes(SPECS, inputs, {"batch": (1, 2, 2)}) == {"batch": 2}
    assert SPECS[1].resolve({"batch": 5}) == (15,)
    assert SPECS[1].resolve({}) is None


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(2, 4), None, "missing input y"),
        (torch.zeros(2, 5), torch.zeros(6, dtype=torch.int64), "was built for x float32"),
        (torch.zeros(2), torch.zeros(6, dtype=torch.int64), r"has shape \[2\]"),
        (torch.zeros(2, 4, dtype=torch.float16), torch.zeros(6, dtype=torch.int64), "x is float16"),
        (torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64), "batch=1, but another input has batch=2"),
        (torch.zeros(2, 4), torch.zeros(4, dtype=torch.int64), "multiple of 3"),
        (
            torch.zeros(3, 4),
            torch.zeros(9, dtype=torch.int64),
            r"batch 1 to 2; run `build\(...\)` again with `batch=\(1, 2, 3\)`",
        ),
    ],
)
def test_other_inputs_are_refused(x: torch.Tensor, y: torch.Tensor | None, message: str) -> None:
    inputs = {"x": x} if y is None else {"x": x, "y": y}
    with pytest.raises(InputError, match=message):
        bind_shapes(SPECS, inputs, {"batch": (1, 2, 2)})


def test_text_of_another_length_names_the_way() -> None:
    spec = TensorSpec("encoder_hidden_states", "float32", ("batch", 5, 2))
    with pytest.raises(InputError, match=r"run `export\(dynamic=\('batch', 'text'\)\)`"):
        bind_shapes((spec,), {spec.name: torch.zeros(1, 6, 2)}, {})


def test_an_unknown_input_is_refused() -> None:
    with pytest.raises(InputError, match="unknown input z"):
        bind_shapes((), {"z": torch.zeros(1)}, {})
