from __future__ import annotations

from typing import Any

import pytest
import torch

from f3prune.core.errors import InputError
from f3prune.engines import coupling
from f3prune.engines.check import Coupling
from f3prune.families import LatentShape, TokenGrid, family_of, registry
from f3prune.testing import TINY_SHAPES, tiny_denoiser

COGVIDEOX = registry()["cogvideox"]
GRID = TokenGrid(3, 1, 4)


def mixer(weights: torch.Tensor) -> Any:
    """A denoiser that mixes frames linearly: output frame j is ``Σ_i weights[i, j] · frame i``."""

    def denoise(hidden_states: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor]:
        return (torch.einsum("ij,bi...->bj...", weights.to(hidden_states), hidden_states),)

    return denoise


def latents(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    return {"hidden_states": torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0)).to(dtype)}


def test_a_linear_mixer_answers_with_its_own_weights() -> None:
    weights = torch.tensor([[2.0, 0.5, 0.0], [0.0, 1.0, 0.25], [0.0, 0.0, 3.0]])
    inputs = latents()
    before = inputs["hidden_states"].clone()
    found = coupling(mixer(weights), COGVIDEOX, inputs, GRID)
    assert torch.allclose(torch.tensor(found.response), weights.abs(), atol=1e-9)
    assert [found.responding(frame) for frame in range(3)] == [[0, 1], [1, 2], [2]]
    assert torch.equal(inputs["hidden_states"], before)


def test_frames_that_do_not_mix_do_not_respond() -> None:
    found = coupling(mixer(torch.eye(3)), COGVIDEOX, latents(torch.float32), GRID)
    assert [found.responding(frame) for frame in range(3)] == [[0], [1], [2]]


def test_half_precision_counts_what_the_latents_took() -> None:
    found = coupling(mixer(torch.eye(3)), COGVIDEOX, latents(torch.float16), GRID, eps=1e-2)
    assert all(found.response[frame][frame] == pytest.approx(1) for frame in range(3))
    with pytest.raises(InputError, match="too small to change"):
        coupling(mixer(torch.eye(3)), COGVIDEOX, latents(torch.float16), GRID, eps=1e-9)


def test_some_frames_only() -> None:
    found = coupling(mixer(torch.ones(3, 3)), COGVIDEOX, latents(), GRID, frames=[1])
    assert [found.responding(frame) for frame in range(3)] == [[], [0, 1, 2], []]


def test_nan_counts_as_a_response() -> None:
    assert Coupling([[float("nan")]]).responding(0) == [0]
    assert Coupling([[1e-7, 1.0]], threshold=1e-6).responding(0) == [1]


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="greater than 0"):
        coupling(mixer(torch.eye(3)), COGVIDEOX, latents(), GRID, eps=0)
    with pytest.raises(InputError, match="no hidden_states"):
        coupling(mixer(torch.eye(3)), COGVIDEOX, {}, GRID)


@pytest.mark.parametrize("name", ["cogvideox", "ltx", "latte"])
def test_dense_denoisers_couple_every_pair(name: str) -> None:
    denoiser = tiny_denoiser(name)
    family = family_of(denoiser)
    shape: LatentShape = TINY_SHAPES[name]
    inputs = family.synthetic_inputs(denoiser, shape, 1, torch.Generator().manual_seed(0))
    grid = family.token_grid(denoiser, inputs)
    found = coupling(denoiser, family, inputs, grid, eps=0.1)
    assert all(found.responding(frame) == list(range(grid.frames)) for frame in range(grid.frames))
