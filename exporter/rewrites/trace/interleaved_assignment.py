"""Rotary embeddings that fill even and odd channels by assignment."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from f3prune.exporter.rewrites.trace._function_mode import FunctionRewrite

_EVEN = (Ellipsis, slice(0, None, 2))
_ODD = (Ellipsis, slice(1, None, 2))


class InterleavedAssignment(FunctionRewrite):
    """``out[..., 0::2] = a; out[..., 1::2] = b`` becomes one ``stack`` of a and b.

    Why:
        Wan and SkyReels-V2 write their rotary embedding so. Exported, each assignment is a ScatterND over the whole of
        q or k, with an index tensor: slow everywhere, and opaque to TensorRT's fusions.

    Requires:
        the two assignments follow each other with no other write to ``out`` between them; otherwise they are left
        alone.

    Ensures:
        the same values: the first assignment still happens, and the second overwrites all of ``out``, which makes the
        first dead code.
    """

    def __init__(self) -> None:
        super().__init__({torch.Tensor.__setitem__: self._assign})
        self._even: tuple[weakref.ref[torch.Tensor], int, torch.Tensor] | None = None

    def _assign(self, out: torch.Tensor, index: Any, values: Any) -> Any:
        if not isinstance(index, tuple) or not isinstance(values, torch.Tensor):
            return NotImplemented
        if _same(index, _EVEN):
            out[index] = values
            self._even = (weakref.ref(out), out._version, values)
            return None
        if _same(index, _ODD) and self._even is not None:
            target, version, even = self._even
            self._even = None
            halves = (*out.shape[:-1], out.shape[-1] // 2)
            if target() is out and version == out._version and even.shape == values.shape == halves:
                out.copy_(torch.stack([even, values], dim=-1).flatten(-2))
                return None
        return NotImplemented


def _same(index: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    if len(index) != 2 or index[0] is not Ellipsis or not isinstance(index[1], slice):
        return False
    given = index[1]
    return (given.start or 0, given.stop, given.step) == (wanted[1].start, wanted[1].stop, wanted[1].step)
