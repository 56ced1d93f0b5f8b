"""Trace a denoiser without its weights, and give them to the graph afterwards."""

from __future__ import annotations

import mmap
from collections.abc import Mapping

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor
from torch import nn

from f3prune.core.errors import ExportError
from f3prune.core.weights import LazyTensor, lazy_weights, with_weights

_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's value; Python names it from 3.13 on
_ALIGNMENT = 64

Weights = Mapping[int, LazyTensor]
"""Lazy weights by the address of the placeholder that stands for them."""


def without_weights(denoiser: nn.Module) -> tuple[nn.Module, Weights]:
    """A copy of ``denoiser`` with a placeholder for every lazy weight; the denoiser itself where none is lazy.

    Why:
        ``torch.export`` wants ordinary tensors and reads only their shapes and dtypes. Placeholders lie in address
        space that was reserved but never written to, which takes no memory, and each is known by its address.

    Returns:
        What to trace, and which weight each placeholder stands for.
    """
    lazy = [tensor for _, tensor in lazy_weights(denoiser)]
    if not lazy:
        return denoiser, {}
    total = sum(-(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for tensor in lazy)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    space = torch.frombuffer(mmap.mmap(-1, max(total, 1), flags=flags), dtype=torch.uint8)
    weights: dict[int, LazyTensor] = {}
    offset = 0

    def place(tensor: LazyTensor) -> torch.Tensor:
        nonlocal offset
        placeholder = space[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        offset += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        if tensor.nbytes:
            weights[placeholder.data_ptr()] = tensor
        return placeholder

    return with_weights(denoiser, place), weights


def attach_weights(model: ir.Model, weights: Weights) -> None:
    """Replace placeholders among the initializers by the weights they stand for, which are read when they are written.

    Raises:
        ExportError: a placeholder was lost on the way, or has another shape than its weight.
    """
    found = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        raw = tensor.raw if isinstance(tensor, ir.Tensor) else None
        weight = weights.get(raw.data_ptr()) if isinstance(raw, torch.Tensor) and raw.numel() else None
        if tensor is None or weight is None:
            continue
        if tuple(tensor.shape) != tuple(weight.shape):
            raise ExportError(
                f"weight {value.name} is {tuple(weight.shape)} in the model and {tuple(tensor.shape)} in the graph: "
                f"report this denoiser"
            )
        value.const_value = _deferred(weight, value.name)
        found += 1
    if weights and not found:
        raise ExportError("the translation replaced every weight by a copy: use another torch version")


def _deferred(weight: LazyTensor, name: str | None) -> ir.LazyTensor:
    dtype = ir.tensor_adapters.from_torch_dtype(weight.dtype)
    return ir.LazyTensor(
        lambda: TorchTensor(weight.value(), name=name), dtype=dtype, shape=ir.Shape(weight.shape), name=name
    )
