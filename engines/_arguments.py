"""From the arguments that a pipeline passes to its denoiser to the inputs that an engine takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from engines._specs import TensorSpec, dimension_of
from f3prune.errors import InputError

_RETURN_DICT = "return_dict"
_TOLERANCE = 1e-6


class ArgumentMap:
    """How the forward of one denoiser class maps to the inputs of one engine."""

    def __init__(
        self, forward: Callable[..., Any], specs: Sequence[TensorSpec], constants: Mapping[str, Any], where: str
    ) -> None:
        """``forward`` is the class's; ``constants`` are the arguments its graph baked; ``where`` names the engine."""
        self._signature = inspect.signature(forward)
        self._specs = {spec.name: spec for spec in specs}
        self._constants = dict(constants)
        self._where = where

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, defaults filled in, as calling the class itself would bind them."""
        bound = self._signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        return dict(list(bound.arguments.items())[1:])

    def inputs(self, arguments: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The engine's inputs, in its dtypes, with scalars spread over the batch where the graph has them per sample.

        Raises:
            InputError: a value differs from what the graph baked, an argument is one the graph lacks, or one that the
                graph takes was not given.
        """
        found: dict[str, Any] = {}
        for name, value in arguments.items():
            if name == _RETURN_DICT:
                continue
            if name in self._specs and value is not None:
                found[name] = value
                continue
            leaves = dict(_tensors(name, value))
            if not leaves or name in self._constants:
                self._check_constant(name, value)
                continue
            for path, tensor in leaves.items():
                if path not in self._specs:
                    raise InputError(
                        f"{self._where} was exported without {path}, but the pipeline passes it: "
                        f"export with it, or turn the feature off"
                    )
                found[path] = tensor
        if missing := set(self._specs) - set(found):
            raise InputError(
                f"{self._where} takes {', '.join(sorted(missing))}, which the pipeline did not pass: "
                f"export from the pipeline that generates"
            )
        return self._adapt(found)

    def _check_constant(self, name: str, value: Any) -> None:
        default = self._signature.parameters[name].default
        baked = self._constants.get(name, None if default is inspect.Parameter.empty else default)
        if not _same(value, baked):
            raise InputError(
                f"{self._where} was exported with {name}={baked!r}, but the pipeline passes {value!r}: "
                f"use the exported value, or export and build again"
            )

    def _adapt(self, found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        inputs: dict[str, torch.Tensor] = {}
        sizes: dict[str, int] = {}
        for name, spec in self._specs.items():
            value = found[name]
            # One value may stand for the whole batch: its length says nothing about the batch's.
            single = isinstance(value, torch.Tensor) and value.numel() == 1 and len(spec.shape) <= 1
            if isinstance(value, torch.Tensor) and value.ndim == len(spec.shape) and not single:
                inputs[name] = _cast(value, spec, self._where)
                for size, wanted in zip(value.shape, spec.shape, strict=True):
                    if isinstance(wanted, str):
                        factor, symbol = dimension_of(wanted)
                        sizes.setdefault(symbol, size // factor)
        for name, spec in self._specs.items():
            if name not in inputs:
                inputs[name] = _reshape(
                    _cast(torch.as_tensor(found[name]), spec, self._where), spec, sizes, self._where
                )
        return inputs


def _tensors(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor inside nested tuples, lists and dicts, with the exporter's name for it: ``image_rotary_emb.0``."""
    stack: list[tuple[str, Any]] = [(name, value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, torch.Tensor):
            yield path, item
        elif isinstance(item, (tuple, list)):
            stack.extend((f"{path}.{index}", part) for index, part in enumerate(item))
        elif isinstance(item, Mapping):
            stack.extend((f"{path}.{key}", part) for key, part in item.items())


def _plain(value: Any) -> Any:
    """Tuples as lists, one-element tensors and arrays as numbers; an empty dict counts as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()} or None
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return value


def _same(given: Any, baked: Any) -> bool:
    given, baked = _plain(given), _plain(baked)
    if isinstance(given, list) and isinstance(baked, list):
        return len(given) == len(baked) and all(map(_same, given, baked))
    numbers = (int, float)
    if isinstance(given, numbers) and isinstance(baked, numbers):
        return abs(given - baked) <= _TOLERANCE * max(1.0, abs(given), abs(baked))
    return bool(given == baked)


def _cast(value: torch.Tensor, spec: TensorSpec, where: str) -> torch.Tensor:
    dtype = spec.torch_dtype
    if value.dtype == dtype:
        return value
    if dtype == torch.bool:
        return value != 0
    if value.is_floating_point() and not dtype.is_floating_point:
        rounded = value.round()
        if not torch.equal(rounded, value):
            raise InputError(
                f"{where} takes {spec}, but the pipeline passes {value.flatten()[0].item()!r}, no whole number: "
                f"export with a scheduler of the same kind"
            )
        value = rounded
    return value.to(dtype)


def _reshape(value: torch.Tensor, spec: TensorSpec, sizes: Mapping[str, int], where: str) -> torch.Tensor:
    """Spread one value over the shape the graph takes, or take the one value of many equal ones."""
    shape = spec.resolve(sizes)
    if shape is not None and value.numel() == 1:
        return value.reshape(()).expand(shape)
    if not spec.shape and value.numel() and bool((value == value.flatten()[0]).all()):
        return value.flatten()[0]
    raise InputError(f"{where} takes {spec}, but the pipeline passes shape {list(value.shape)}: export for that shape")
