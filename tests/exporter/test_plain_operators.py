"""Rewrites at trace time that say something in operators every backend has compute what they replace."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers import transformer_anyflow
from diffusers.models.transformers.transformer_anyflow import AnyFlowRotaryPosEmbed

from f3prune.exporter.rewrites import (
    HouseholderQR,
    SingleRepeat,
    WholeSplit,
    positions_of_one_sample,
    rotation_by_angles,
)
from f3prune.testing import tiny_denoiser


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("shape", [(8, 4), (5, 5), (16, 1), (1, 1), (64, 20)])
def test_householder_qr(shape):
    """Signs included: which way the basis points decides what a motion means."""
    matrix = normal(*shape)
    matrix[0, 0] = -abs(matrix[0, 0])
    expected = torch.linalg.qr(matrix)
    with HouseholderQR():
        basis, upper = torch.linalg.qr(matrix)
    torch.testing.assert_close(basis, expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(upper, expected[1], rtol=1e-5, atol=1e-5)


def test_householder_qr_leaves_others_alone():
    for matrix, options in ((normal(3, 5), {}), (normal(5, 3), {"mode": "complete"}), (normal(2, 5, 3), {})):
        expected = torch.linalg.qr(matrix, **options)
        with HouseholderQR():
            assert torch.equal(torch.linalg.qr(matrix, **options)[0], expected[0])


def test_single_repeat():
    tensor = normal(2, 3)
    with SingleRepeat():
        assert tensor.repeat_interleave(1, dim=1) is tensor
        assert torch.equal(tensor.repeat_interleave(2, dim=1), torch.repeat_interleave(tensor, 2, 1))
        assert tensor.repeat_interleave(1).shape == (6,)
        assert tensor.repeat_interleave(torch.tensor([1, 2, 1]), dim=1).shape == (2, 4)


def test_whole_split():
    class Pieces(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.cat([piece * 2 for piece in torch.split(batch, 2)])

    batch = normal(5, 3)
    with WholeSplit():
        assert [len(piece) for piece in torch.split(batch, 2)] == [2, 2, 1], "the length is known"
        exported = torch.export.export(Pieces(), (batch,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for other in (batch, normal(9, 3), normal(2, 3)):
        assert torch.equal(exported.module()(other), Pieces()(other))


def test_positions_of_one_sample():
    positions = tiny_denoiser("cosmos").learnable_pos_embed
    video = normal(3, 4, 3, 4, 6)
    expected = positions(video)
    with positions_of_one_sample():
        once = positions(video)
    assert once.shape[0] == 1
    torch.testing.assert_close(once.expand_as(expected), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rotation_by_angles(dtype):
    rope = AnyFlowRotaryPosEmbed(12, (1, 2, 2), 64)
    sizes = {"total_frames": 30, "full_frame_shape": (3, 4)}
    tokens = normal(2, 4, 360, 12, dtype=dtype)
    expected = transformer_anyflow.apply_rotary_emb(tokens, rope(sizes, tokens.device)["query"])
    with rotation_by_angles():
        angles = rope(sizes, tokens.device)["query"]
        actual = transformer_anyflow.apply_rotary_emb(tokens, angles)
    assert not angles.is_complex()
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 2e-3)
