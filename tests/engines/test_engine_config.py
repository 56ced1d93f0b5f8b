from __future__ import annotations

from typing import Any

import pytest

from f3prune.core.errors import InputError
from f3prune.engines import BuildConfig


def test_round_trip() -> None:
    config = BuildConfig(
        backend="tensorrt-rtx",
        batch=(1, 2, 4),
        ranges={"text": (1, 64, 226)},
        compute_capabilities=("8.9", "12.0"),
        optimization_level=3,
        workspace_bytes=1 << 30,
        cache=False,
    )
    assert BuildConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backend": "openvino"}, "`backend` is 'openvino'"),
        ({"batch": (2, 1, 2)}, "range of batch"),
        ({"batch": (0, 1, 2)}, "range of batch"),
        ({"ranges": {"text": (1, 2)}}, "range of text"),
        ({"backend": "tensorrt-rtx", "compute_capabilities": ("89",)}, "major.minor"),
        ({"compute_capabilities": ("8.9",)}, "are for `backend='tensorrt-rtx'`"),
        ({"optimization_level": 6}, "outside 0 to 5"),
        ({"threads": -1}, "negative"),
        ({"graph_optimization": "most"}, "graph_optimization"),
        ({"version": 2}, "version 2"),
    ],
)
def test_values_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BuildConfig(**values)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"backend": "onnxruntime", "shards": 2}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        BuildConfig.from_json(text)


def test_a_dimension_without_a_range_is_named() -> None:
    with pytest.raises(InputError, match="'tokens' is dynamic"):
        BuildConfig().range_of("tokens")
