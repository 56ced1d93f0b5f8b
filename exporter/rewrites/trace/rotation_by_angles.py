"""Rotary embeddings without complex numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.transformers import transformer_anyflow
from diffusers.models.transformers.transformer_anyflow import AnyFlowRotaryPosEmbed


@contextlib.contextmanager
def rotation_by_angles() -> Iterator[None]:
    """AnyFlow's tables hold angles in place of complex numbers of modulus one, and rotate by cosine and sine.

    Why:
        the original multiplies by complex numbers in double precision. ONNX has no complex numbers, and TensorRT no
        double precision.

    Requires:
        nothing: what happens to a table between its making and its use (cutting, repeating, putting side by side) is
        the same for angles.

    Ensures:
        the same values, in the precision of float32: cosines and sines are of angles in double precision.
    """
    table, rotate = AnyFlowRotaryPosEmbed._build_freqs, transformer_anyflow.apply_rotary_emb
    AnyFlowRotaryPosEmbed._build_freqs = _angles
    transformer_anyflow.apply_rotary_emb = _rotated
    try:
        yield
    finally:
        AnyFlowRotaryPosEmbed._build_freqs = table
        transformer_anyflow.apply_rotary_emb = rotate


def _angles(self: Any, device: torch.device) -> torch.Tensor:
    """``positions (t h w)``, float64: each axis' angle for every pair of channels."""
    side = 2 * (self.attention_head_dim // 6)
    tables = []
    for dim in (self.attention_head_dim - 2 * side, side, side):
        speeds = self.theta ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim)
        tables.append(torch.outer(torch.arange(self.max_seq_len, dtype=torch.float64, device=device), speeds))
    return torch.cat(tables, dim=1)


def _rotated(hidden_states: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Pairs of channels of ``b h n d`` rotated by angles ``1 1 n d/2``, in float32."""
    first, second = hidden_states.float().unflatten(3, (-1, 2)).unbind(-1)
    cos, sin = angles.cos().float(), angles.sin().float()
    rotated = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return rotated.flatten(3, 4).type_as(hidden_states)
