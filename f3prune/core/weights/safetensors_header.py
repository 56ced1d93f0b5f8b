"""What a safetensors file holds, and one tensor of it at a time.

The reference library maps a file as a whole, privately: Linux refuses that for a file larger than the memory that is
left. A model of 14 billion parameters in one file is.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from f3prune.core.json_values import parse_json

DTYPES = {
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U16": torch.uint16,
    "I16": torch.int16,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""dtypes by their names in the format, in the order in which the reference library stores them."""
LARGEST_HEADER = 100_000_000
"""Bytes; the reference library's own limit."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        dtype, shape: of the tensor.
        offset: of its first byte in the file.
        size: in bytes.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    size: int


def read_header(path: Path) -> dict[str, Entry]:
    """Every tensor of a file by name; no value is read.

    Source:
        the format's specification, https://huggingface.co/docs/safetensors.

    Raises:
        SafetensorError: the file is damaged, cut short, or holds a dtype that is unknown here.
        OSError: it cannot be read.
    """
    length = os.path.getsize(path)
    with open(path, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if length < 8 or size > min(LARGEST_HEADER, length - 8):
            raise SafetensorError(f"its header of {size} bytes does not fit into a file of {length}")
        text = stream.read(size)
    try:
        header = parse_json(text)
        header.pop("__metadata__", None)
        found = {name: _entry(value, 8 + size) for name, value in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SafetensorError(f"its header is not one of safetensors ({error!r})") from error
    end = 8 + size
    for name, entry in sorted(found.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset != end or entry.size != math.prod(entry.shape) * entry.dtype.itemsize:
            raise SafetensorError(f"tensor {name} does not lie where the one before it ends, or has another size")
        end += entry.size
    if end != length:
        raise SafetensorError(f"its tensors end at byte {end}, the file at {length}")
    return found


def _entry(value: Any, start: int) -> Entry:
    first, last = value["data_offsets"]
    shape = tuple(value["shape"])
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, first, last)):
        raise ValueError("negative or fractional sizes")
    return Entry(DTYPES[str(value["dtype"])], shape, start + first, last - first)


def read_tensor(path: Path, entry: Entry) -> torch.Tensor:
    """The values of one tensor, in memory of their own.

    Raises:
        SafetensorError: the file ends before they do.
        OSError: it cannot be read.
    """
    made = torch.empty(entry.shape, dtype=entry.dtype)
    view = memoryview(made.reshape(-1).view(torch.uint8).numpy()) if entry.size else memoryview(b"")  # type: ignore[arg-type]
    with open(path, "rb", buffering=0) as stream:
        stream.seek(entry.offset)
        while view:
            count = stream.readinto(view)
            if not count:
                raise SafetensorError(f"the file was cut short while it was in use: {len(view)} bytes are missing")
            view = view[count:]
    return made
