"""Names, types and shapes of an engine's inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from f3prune.core.errors import InputError

if TYPE_CHECKING:
    import torch

# ONNX element type -> the name that torch, engine.json and messages use.
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
ONNX_TYPES: dict[str, int] = {name: number for number, name in ELEMENT_TYPES.items()}
SHORT_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


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
    """One input or output: ``dtype`` is torch's name, ``shape`` has ints and names of symbolic dimensions."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's object."""
        import torch

        dtype = getattr(torch, self.dtype)
        if not isinstance(dtype, torch.dtype):
            raise InputError(f"{self.name} has element type {self.dtype}, which torch lacks")
        return dtype

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

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TensorSpec:
        """Read :meth:`to_dict`'s values."""
        return cls(str(values["name"]), str(values["dtype"]), tuple(values["shape"]))

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


def bind_shapes(
    specs: Sequence[TensorSpec],
    inputs: Mapping[str, torch.Tensor],
    ranges: Mapping[str, Sequence[int]],
) -> dict[str, int]:
    """Check ``inputs`` against ``specs`` and return the size of every symbolic dimension.

    Raises:
        InputError: a name is missing or unknown, a dtype or shape differs, one symbolic dimension has two sizes, or a
            size lies outside what the engine was built for.
    """
    expected = {spec.name for spec in specs}
    if missing := expected - set(inputs):
        raise InputError(f"missing input {', '.join(sorted(missing))}: the engine takes {', '.join(map(str, specs))}")
    if unknown := set(inputs) - expected:
        raise InputError(f"unknown input {', '.join(sorted(unknown))}: the engine takes {', '.join(map(str, specs))}")
    sizes: dict[str, int] = {}
    for spec in specs:
        tensor = inputs[spec.name]
        shape = tuple(tensor.shape)
        if tensor.dtype != spec.torch_dtype:
            raise InputError(
                f"input {spec.name} is {str(tensor.dtype).removeprefix('torch.')}, the engine takes {spec}"
            )
        if len(shape) != len(spec.shape):
            raise InputError(f"input {spec.name} has shape {list(shape)}, the engine takes {spec}")
        for size, wanted in zip(shape, spec.shape, strict=True):
            if isinstance(wanted, int):
                if size != wanted:
                    raise InputError(
                        f"input {spec.name} has shape {list(shape)}, but the engine was built for {spec}; "
                        f"generate at that size, or export and build for this one"
                    )
                continue
            factor, name = dimension_of(wanted)
            if size % factor:
                raise InputError(
                    f"input {spec.name} has shape {list(shape)}, but {wanted} must be a multiple of {factor}"
                )
            if sizes.setdefault(name, size // factor) != size // factor:
                raise InputError(
                    f"input {spec.name} has {name}={size // factor}, but another input has {name}={sizes[name]}"
                )
    for name, size in sizes.items():
        if name in ranges and not ranges[name][0] <= size <= ranges[name][-1]:
            raise InputError(
                f"{name} is {size}, but the engine was built for {name} {ranges[name][0]} to {ranges[name][-1]}; "
                f"build again with a wider range"
            )
    return sizes
