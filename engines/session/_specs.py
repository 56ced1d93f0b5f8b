"""Inputs given to an engine against what it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from f3prune.core.errors import InputError
from f3prune.core.tensors import TensorSpec, dimension_of

if TYPE_CHECKING:
    import torch


def other_size(spec: TensorSpec) -> str:
    """What to do for an input that comes in another size than the graph has fixed."""
    if spec.name.startswith("encoder_"):
        return "run `export(dynamic=('batch', 'text'))` for prompts of any length, and `build(...)` again"
    return "generate at that size, or run `export(...)` and `build(...)` for this one"


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
                        f"{other_size(spec)}"
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
            low, most = min(size, ranges[name][0]), max(size, ranges[name][-1])
            way = (
                f"`batch={(low, min(max(ranges[name][len(ranges[name]) // 2], low), most), most)!r}`"
                if name == "batch"
                else f"a range of {name} up to {most} in BuildConfig"
            )
            raise InputError(
                f"{name} is {size}, but the engine was built for {name} {ranges[name][0]} to {ranges[name][-1]}; "
                f"run `build(...)` again with {way}"
            )
    return sizes
