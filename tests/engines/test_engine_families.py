"""Export, build and run other kinds of denoiser: UNets, constants, masks, text repeated for every frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from f3prune.core.errors import InputError
from f3prune.engines import BuildConfig, EngineDenoiser, build_engine, open_session, parity
from f3prune.families import family_of
from f3prune.testing import TINY_SHAPES
from tests.exports import exported

UNET = pytest.mark.slow(reason="two builds of a UNet")


@pytest.mark.parametrize("name", ["ltx", pytest.param("animatediff", marks=UNET), "svd"])
def test_an_engine_stands_in_for_the_denoiser(name: str, tmp_path: Path) -> None:
    dense = exported(name)
    denoiser, graph, inputs = dense.denoiser, dense.result.path, dense.inputs(2)
    family, shape = family_of(denoiser), TINY_SHAPES[name]
    build_engine(graph, tmp_path / "rtx", BuildConfig(backend="tensorrt-rtx"))
    assert build_engine(graph, tmp_path / "engine").metadata["f3prune.family"] == name
    with open_session(tmp_path / "engine") as session, torch.no_grad():
        engine = EngineDenoiser(denoiser, session)
        for batch in (2, 1):
            fresh = family.synthetic_inputs(denoiser, shape, batch, torch.Generator().manual_seed(7))
            expected, answered = denoiser(**fresh), engine(**fresh)
            assert type(answered) is type(expected)
            assert parity(expected.sample, answered.sample).rel_l2 < 1e-4
        for argument, value in inputs.items():
            if isinstance(value, int):
                with pytest.raises(InputError, match=f"was exported with {argument}={value}"):
                    engine(**{**inputs, argument: value + 1})
