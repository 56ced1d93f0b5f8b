"""Write a safetensors file one tensor at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from f3prune.core.errors import InputError
from f3prune.core.weights.lazy_weights import LazyTensor
from f3prune.core.weights.safetensors_header import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8


def save_streaming(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` to ``path`` as ``safetensors.torch.save_file`` would, which copies all of them first.

    Does:
        writes the header from shapes and dtypes, then tensor after tensor: of lazy ones, one at a time is in memory.
        Tensors that share memory are written each. Equal content gives equal bytes: ``save_file`` puts metadata in
        another order in every process.

    Source:
        the format's specification, https://huggingface.co/docs/safetensors: length of the header (u64, little endian),
        header (JSON, padded with spaces to 8 bytes), data.

    Raises:
        InputError: a tensor has a dtype that the format does not know here.
    """
    ranks = {dtype: rank for rank, dtype in enumerate(_NAMES)}
    for name, tensor in tensors.items():
        if tensor.dtype not in ranks:
            raise InputError(f"weight {name} is {tensor.dtype}, which cannot be saved: convert it first")
    names = sorted(tensors, key=lambda name: (ranks[tensors[name].dtype], name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(path, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        stream.flush()
        for name in names:
            _write(tensors[name], stream.fileno())


def _write(tensor: torch.Tensor, descriptor: int) -> None:
    """Write the bytes of one tensor; its values are dropped on return."""
    made = tensor.value() if isinstance(tensor, LazyTensor) else tensor
    # One element counts as contiguous whatever its strides are; a copy has those that a view of bytes needs.
    flat = made.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
    view = memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
    while view:
        view = view[os.write(descriptor, view) :]
