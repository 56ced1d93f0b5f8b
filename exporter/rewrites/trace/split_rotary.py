"""LTX-2's rotary embedding of halves without writing into parts of a tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from diffusers.models.transformers import transformer_ltx2


@contextlib.contextmanager
def split_rotary_in_one_piece() -> Iterator[None]:
    """``apply_split_rotary_emb`` rotates both halves of a head and joins them.

    Why:
        the original adds to two views of one tensor in place (``addcmul_``). Exported, each is a ScatterND over the
        whole of q or k, with an index tensor.

    Requires:
        nothing.

    Ensures:
        the same values to rounding.
    """
    original = transformer_ltx2.apply_split_rotary_emb
    transformer_ltx2.apply_split_rotary_emb = _rotate
    try:
        yield
    finally:
        transformer_ltx2.apply_split_rotary_emb = original


def _rotate(x: torch.Tensor, freqs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotate ``b n (h d)`` or ``b h n d`` by angles ``b h n d/2`` whose cosines and sines are given, in fp32."""
    cos, sin = freqs
    packed = x.ndim != 4 and cos.ndim == 4
    heads = x.unflatten(-1, (cos.shape[1], -1)).transpose(1, 2) if packed else x
    first, second = heads.float().chunk(2, dim=-1)
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return (rotated.transpose(1, 2).flatten(2) if packed else rotated).to(x.dtype)
