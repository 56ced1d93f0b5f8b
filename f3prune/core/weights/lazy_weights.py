"""Weights that are read, cut and converted at the moment somebody needs their values, and forgotten again.

A model of 14 billion parameters has 28 GB of weights in bfloat16. Loading it, pruning it and writing it out needs one
tensor of it in memory at a time: a ``LazyTensor`` knows its shape and dtype, and how to make its values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from f3prune.core.errors import InputError
from f3prune.core.weights.safetensors_header import Entry, read_header, read_tensor

_aten = torch.ops.aten

_PUT_OFF = frozenset(
    {
        _aten.detach.default,
        _aten.alias.default,
        _aten.clone.default,
        _aten._to_copy.default,
        _aten.index.Tensor,
        _aten.slice.Tensor,
        _aten.t.default,
        _aten.mm.default,
        _aten.mv.default,
        _aten.add.Tensor,
        _aten._unsafe_view.default,
        _aten.view.default,
        _aten.squeeze.dim,
        _aten.unsqueeze.default,
        _aten.cat.default,
    }
)
"""What pruning and changes of dtype do to weights. Everything else computes at once."""


class LazyTensor(torch.Tensor):
    """A tensor on the CPU whose values are made anew whenever they are read.

    Does:
        what pruning does to weights (rows and columns taken, products of two, another dtype) gives a ``LazyTensor``
        again, as long as no operand but an index has values. Any other operation makes the values, computes, and
        drops them: a denoiser with lazy weights runs, and holds one weight at a time.

    Ensures:
        immutable: operations in place and gradients are refused; copies are the same object.
    """

    _like: torch.Tensor
    _make: Callable[[], torch.Tensor]

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, like: torch.Tensor, make: Callable[[], torch.Tensor]) -> LazyTensor:
        """Give a tensor of the same shape, strides and dtype on the meta device, and what makes the values."""
        tensor: LazyTensor = torch.Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=torch.device("cpu"), requires_grad=False
        )
        tensor._like = like
        tensor._make = make
        return tensor

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[[], torch.Tensor]) -> LazyTensor:
        """One whose ``make`` gives a contiguous tensor of ``shape`` and ``dtype`` on the CPU."""
        return cls(torch.empty(shape, dtype=dtype, device="meta"), make)

    def value(self) -> torch.Tensor:
        """An ordinary tensor with the values, made now."""
        with torch.inference_mode(False), torch.no_grad():
            made = self._make()
        if made.shape != self.shape or made.dtype != self.dtype:
            raise InputError(
                f"a weight of {tuple(self.shape)} {self.dtype} turned into {tuple(made.shape)} {made.dtype}: "
                f"its file was replaced while it was in use; start again"
            )
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> LazyTensor:
        return self

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        del tensor_contents
        return f"LazyTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            raise InputError(
                f"{func} would change a weight in place, and lazily loaded weights have no memory: load the denoiser "
                f"with its weights in memory"
            )
        if func in _PUT_OFF and _may_wait(args, kwargs):
            like = func(*_to_meta(args), **_to_meta(kwargs))
            return cls(like, lambda: func(*_values(args), **_values(kwargs)))
        with torch.no_grad():
            return func(*_values(args), **_values(kwargs))


def _may_wait(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether nothing but lazy weights and indices takes part, and the result stays on the CPU."""
    if kwargs.get("device") not in (None, torch.device("cpu")):
        return False
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return all(isinstance(tensor, LazyTensor) or not tensor.is_floating_point() for tensor in tensors)


def _to_meta(tree: Any) -> Any:
    moved = tree_map_only(torch.Tensor, lambda t: t._like if isinstance(t, LazyTensor) else t.to("meta"), tree)
    return tree_map_only(torch.device, lambda _: torch.device("meta"), moved)


def _values(tree: Any) -> Any:
    return tree_map_only(LazyTensor, lambda tensor: tensor.value(), tree)


def read_lazily(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file by name, none of them read yet.

    Raises:
        SafetensorError, OSError: the file is damaged or missing.
    """

    # Each is read with open, seek and read when it is wanted: no handle and no mapping is kept.
    known = _identity(path)

    def read(entry: Entry) -> torch.Tensor:
        if _identity(path) != known:
            raise InputError(f"{path} was replaced while it was in use; start again")
        return read_tensor(path, entry)

    return {
        name: LazyTensor.of(entry.shape, entry.dtype, partial(read, entry)) for name, entry in read_header(path).items()
    }


def _identity(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def lazy_weights(module: nn.Module) -> Iterator[tuple[str, LazyTensor]]:
    """Parameters and buffers of ``module`` that are lazy, with their qualified names, each once."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, LazyTensor):
            yield name, tensor


def with_weights(module: nn.Module, replace: Callable[[LazyTensor], torch.Tensor]) -> nn.Module:
    """A copy of ``module`` with every lazy weight replaced; whatever else it has is shared or copied as it is."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if not isinstance(tensor, LazyTensor):
            memo[id(tensor)] = tensor
        elif isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = nn.Parameter(replace(tensor), requires_grad=False)
        else:
            memo[id(tensor)] = replace(tensor)
    return copy.deepcopy(module, memo)


def weight_dtype(name: str, tensor: torch.Tensor, dtype: torch.dtype, keep: tuple[str, ...]) -> torch.dtype:
    """The dtype of a weight in a model of ``dtype`` that keeps in fp32 what has a part of ``keep`` in its name."""
    if not tensor.is_floating_point():
        return tensor.dtype
    if dtype != torch.float32 and any(part in keep for part in name.split(".")):
        return torch.float32
    return dtype


def lazily_in_dtype(
    module: nn.Module, dtype: torch.dtype, keep: tuple[str, ...], computed_buffers: bool = True
) -> nn.Module:
    """Convert ``module`` in place without reading a lazy weight; returns it.

    Args:
        module: with lazy weights or others.
        dtype: of floating-point parameters and buffers.
        keep: see :func:`weight_dtype`.
        computed_buffers: convert buffers that are computed and not saved, too.
    """
    saved = set(module.state_dict(keep_vars=True))
    parameters = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    buffers = [name for name, _ in module.named_buffers(remove_duplicate=False)]
    for name in parameters + buffers:
        owner, _, leaf = name.rpartition(".")
        tensor: torch.Tensor = getattr(module.get_submodule(owner), leaf)
        target = weight_dtype(name, tensor, dtype, keep)
        if target == tensor.dtype or not (computed_buffers or name in saved):
            continue
        converted = tensor.detach().to(target)
        if isinstance(tensor, nn.Parameter):
            converted = nn.Parameter(converted, requires_grad=False)
        setattr(module.get_submodule(owner), leaf, converted)
    return module
