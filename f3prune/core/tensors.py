"""What graphs and engines agree on: names of files and dimensions, dtypes, shapes. Imports no torch by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from f3prune.core.errors import InputError

if TYPE_CHECKING:
    import torch

Dtype = Literal["fp32", "fp16", "bf16"]
"""What a graph can be written in."""
_TORCH_NAMES = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_SHORT_NAMES = {name: short for short, name in _TORCH_NAMES.items()}

GRAPH_FILE = "denoiser.onnx"
DATA_FILE = f"{GRAPH_FILE}.data"
"""The weights, beside the graph."""
METADATA_PREFIX = "f3prune."
"""Of the properties of a graph."""
PREFILL, DECODE = "prefill", "decode"
"""The two graphs of a model that generates token by token, a directory each."""
BATCH, TEXT, FRAME_SLOTS, VIDEO_SLOTS = "batch", "text", "frame_slots", "video_slots"
"""Their symbolic dimensions."""

ELEMENT_TYPES: dict[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    16: "bfloat16",
}
"""ONNX element type -> the name that torch, engine.json and messages use."""
ONNX_TYPES: dict[str, int] = {name: number for number, name in ELEMENT_TYPES.items()}


def torch_dtype(name: str) -> torch.dtype:
    """torch's object for a dtype by its short name (``fp16``) or torch's own (``float16``).

    Raises:
        InputError: torch has no such dtype.
    """
    import torch

    dtype = getattr(torch, _TORCH_NAMES.get(name, name), None)
    if not isinstance(dtype, torch.dtype):
        raise InputError(f"torch has no dtype {name!r}: expected one of {', '.join(_TORCH_NAMES)}")
    return dtype


def short_name(dtype: torch.dtype | str) -> str:
    """``fp16`` for ``torch.float16`` or ``"float16"``; torch's name of a dtype that has no short one."""
    name = str(dtype).removeprefix("torch.")
    return _SHORT_NAMES.get(name, name)


def dimension_of(text: str) -> tuple[int, str]:
    """A symbolic dimension as ``(factor, name)``: ``batch`` is ``(1, "batch")``, ``3*batch`` is ``(3, "batch")``.

    Raises:
        InputError: it is any other expression.
    """
    match = re.fullmatch(r"(?:(\d+)\s*\*\s*)?(\w+)(?:\s*\*\s*(\d+))?", text)
    if match is None or match[2].isdigit():
        raise InputError(f"the graph has a dimension {text!r}; expected a name or a multiple of one, e.g. 3*batch")
    return int(match[1] or 1) * int(match[3] or 1), match[2]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    ``dtype`` is torch's name (``float16``); ``shape`` has ints and symbols (``batch``, ``3*batch``).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's object."""
        return torch_dtype(self.dtype)

    def resolve(self, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
        """The shape with symbolic dimensions filled in, or None where one is not known."""
        if not self.symbols <= set(sizes):
            return None
        factored = [(size, None) if isinstance(size, int) else dimension_of(size) for size in self.shape]
        return tuple(factor if name is None else factor * sizes[name] for factor, name in factored)

    @property
    def symbols(self) -> set[str]:
        """Names of its symbolic dimensions."""
        return {dimension_of(size)[1] for size in self.shape if isinstance(size, str)}

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"
