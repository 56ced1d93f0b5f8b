"""Small graphs to build engines from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

GraphMaker = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an engine cache of its own."""
    cache = tmp_path / "f3prune-cache"
    monkeypatch.setenv("F3PRUNE_CACHE", str(cache))
    return cache / "engines"


@pytest.fixture
def make_graph(tmp_path: Path) -> GraphMaker:
    """A maker of ``sample = softmax(hidden_states @ weight)`` with a symbolic batch and the weight in a file of its own."""

    def make(
        directory: str = "onnx",
        seed: int = 0,
        masks: str | None = "a" * 64,
        operator: str = "Softmax",
        constants: str = "{}",
        element: int = TensorProto.FLOAT,
    ) -> Path:
        folder = tmp_path / directory
        folder.mkdir(exist_ok=True)
        dtype = helper.tensor_dtype_to_np_dtype(element)
        weight = np.random.default_rng(seed).standard_normal((8, 8)).astype(dtype)
        nodes = [
            helper.make_node("MatMul", ["hidden_states", "weight"], ["scores"], name="project"),
            helper.make_node(operator, ["scores"], ["sample"], name="attend"),
        ]
        graph = helper.make_graph(
            nodes,
            "denoiser",
            [helper.make_tensor_value_info("hidden_states", element, ["batch", 4, 8])],
            [helper.make_tensor_value_info("sample", element, ["batch", 4, 8])],
            [numpy_helper.from_array(weight, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        properties = {"f3prune.constants": constants}
        if masks:
            properties["f3prune.masks_digest"] = masks
        helper.set_model_props(model, properties)
        path = folder / "denoiser.onnx"
        data = f"{path.name}.data"
        (folder / data).unlink(missing_ok=True)
        onnx.save(model, str(path), save_as_external_data=True, location=data, size_threshold=0)
        return path

    return make
