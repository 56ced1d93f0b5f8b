"""Contenders are plain values: registered by kind, written to JSON and read back."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from f3prune.bench.contenders import Engine, contenders_of, from_json, registry
from f3prune.bench.contenders.caching import FasterCache
from f3prune.calibration import PruneConfig
from f3prune.cli.commands.measure.bench import CONTENDERS
from f3prune.core.errors import InputError
from f3prune.families import registry as families
from f3prune.testing import tiny_denoiser

POINTS = [PruneConfig(0.5), PruneConfig(0.25, "head", "layers", "drop", 2, ("blocks.0.*",))]


def test_every_contender_survives_json() -> None:
    contenders = contenders_of(POINTS)
    assert {c.kind for c in contenders} == set(registry())
    assert [from_json(json.loads(json.dumps(c.to_json()))) for c in contenders] == contenders


def test_names_tell_contenders_apart() -> None:
    names = [c.name for c in contenders_of(POINTS)]
    assert len(set(names)) == len(names)


def test_the_command_line_knows_every_kind() -> None:
    assert tuple(registry()) == CONTENDERS


def test_the_reference_is_always_among_them() -> None:
    assert [c.kind for c in contenders_of(POINTS, ["openvino"])] == ["pytorch", *["openvino"] * 3]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"kind": "magic"}, "no contender 'magic'"),
        ({"kind": "engine", "alpha": 1}, "no field 'alpha'"),
        ({"kind": "pytorch-pruned"}, "cannot be read"),
        ({"kind": "engine", "config": {"beta": 1}}, "no pruning configuration"),
        ({"kind": "engine", "backend": "abacus"}, "`backend` is 'abacus'"),
        ({"kind": "onnxruntime", "provider": "abacus"}, "provider 'abacus'"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_said(value: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_json(value)


def test_the_dense_engine_is_one_of_ours_and_not_pruned() -> None:
    assert Engine().own
    assert Engine().pruning is None
    assert Engine(POINTS[0]).pruning == POINTS[0]


def test_a_cache_that_reads_the_layout_of_latents_is_left_out_where_channels_stand_last() -> None:
    def context(name: str) -> Any:
        return SimpleNamespace(family=families()[name], dense=lambda: tiny_denoiser(name))

    found = FasterCache().missing(context("kandinsky5"))
    assert found is not None
    assert "channels last" in found.reason
    assert FasterCache().missing(context("wan")) is None
