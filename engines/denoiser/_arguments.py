"""From the arguments that a pipeline passes to its denoiser to the inputs that an engine takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from f3prune.core.errors import InputError
from f3prune.core.tensors import TensorSpec, dimension_of
from f3prune.engines.session._specs import other_size

_RETURN_DICT = "return_dict"
_TOLERANCE = 1e-6
# Guidance and batches of one make two; a caller that changes a plain value at every step must not fill the memory.
_FORMS_KEPT = 8


@dataclass(frozen=True)
class _Route:
    """Where an input comes from: ``arguments[argument]``, then ``[key]`` for each key.

    ``exact`` says that the tensor is passed as it is; ``spread`` that it has another number of axes than the input.
    """

    spec: TensorSpec
    argument: str
    keys: tuple[int | str, ...]
    exact: bool
    spread: bool


@dataclass(frozen=True)
class _Plan:
    """How arguments of one form become inputs; ``baked`` are tensors that the graph holds, compared at every call."""

    routes: tuple[_Route, ...]
    baked: tuple[str, ...]
    sizes: dict[str, int]


class ArgumentMap:
    """How the forward of one denoiser class maps to the inputs of one engine.

    A denoising loop calls with arguments of one form, step after step: shapes, dtypes and plain values are looked at
    when a form is seen first, and the way from its arguments to the inputs is kept.
    """

    def __init__(
        self, forward: Callable[..., Any], specs: Sequence[TensorSpec], constants: Mapping[str, Any], where: str
    ) -> None:
        """``forward`` is the class's; ``constants`` are the arguments its graph baked; ``where`` names the engine."""
        self._signature = inspect.signature(forward)
        self._specs = {spec.name: spec for spec in specs}
        self._constants = dict(constants)
        self._where = where
        parameters = list(self._signature.parameters.values())[1:]
        self._names = tuple(parameter.name for parameter in parameters)
        self._defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        # Arguments gathered by a * or ** parameter have no name of their own: the signature sorts them every time.
        self._named = all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in parameters)
        self._bound: set[tuple[int, tuple[str, ...]]] = set()
        self._plans: dict[tuple[Any, ...], _Plan] = {}

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, defaults filled in, as calling the class itself would bind them."""
        names = (len(args), tuple(kwargs))
        if names in self._bound:
            return {**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs}
        bound = self._signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        if self._named:
            self._bound.add(names)
        return dict(list(bound.arguments.items())[1:])

    def inputs(self, arguments: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The engine's inputs, in its dtypes, with scalars spread over the batch where the graph has them per sample.

        A tensor that has the input's dtype and number of axes is passed as it is.

        Raises:
            InputError: a value differs from what the graph baked, an argument is one the graph lacks, or one that the
                graph takes was not given.
        """
        form = self._form(arguments)
        plan = self._plans.get(form) if form is not None else None
        if plan is None:
            plan = self._plan(arguments)
            if form is not None:
                if len(self._plans) >= _FORMS_KEPT:
                    self._plans.clear()
                self._plans[form] = plan
        for name in plan.baked:
            self._check_constant(name, arguments[name])
        inputs = {}
        for route in plan.routes:
            value = arguments[route.argument]
            for key in route.keys:
                value = value[key]
            if not route.exact:
                value = _cast(torch.as_tensor(value), route.spec, self._where)
                if route.spread:
                    value = _reshape(value, route.spec, plan.sizes, self._where)
            inputs[route.spec.name] = value
        return inputs

    def _form(self, arguments: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """What a plan depends on: shapes and dtypes of tensors, the type of a scalar input, all other values.

        None where a value of another kind could change unseen.
        """
        try:
            return tuple(
                [
                    (name, type(value))
                    if name in self._specs and isinstance(value, (int, float))
                    else (name, _form_of(value))
                    for name, value in arguments.items()
                ]
            )
        except TypeError:
            return None

    def _plan(self, arguments: Mapping[str, Any]) -> _Plan:
        found: dict[str, tuple[str, tuple[int | str, ...], Any]] = {}
        baked = []
        for name, value in arguments.items():
            if name == _RETURN_DICT:
                continue
            if name in self._specs and value is not None:
                found[name] = (name, (), value)
                continue
            leaves = list(_tensors(name, value))
            if not leaves or name in self._constants:
                self._check_constant(name, value)
                if leaves:
                    baked.append(name)
                continue
            for path, keys, tensor in leaves:
                if path not in self._specs:
                    raise InputError(
                        f"{self._where} was exported without {path}, but the pipeline passes it: "
                        f"export with it, or turn the feature off"
                    )
                found[path] = (name, keys, tensor)
        if missing := set(self._specs) - set(found):
            raise InputError(
                f"{self._where} takes {', '.join(sorted(missing))}, which the pipeline did not pass: "
                f"export from the pipeline that generates"
            )
        routes = []
        sizes: dict[str, int] = {}
        for name, spec in self._specs.items():
            argument, keys, value = found[name]
            # One value may stand for the whole batch: its length says nothing about the batch's.
            single = isinstance(value, torch.Tensor) and value.numel() == 1 and len(spec.shape) <= 1
            fits = isinstance(value, torch.Tensor) and value.ndim == len(spec.shape) and not single
            if fits:
                for size, wanted in zip(value.shape, spec.shape, strict=True):
                    if isinstance(wanted, str):
                        factor, symbol = dimension_of(wanted)
                        sizes.setdefault(symbol, size // factor)
            routes.append(_Route(spec, argument, keys, fits and value.dtype == spec.torch_dtype, not fits))
        return _Plan(tuple(routes), tuple(baked), sizes)

    def _check_constant(self, name: str, value: Any) -> None:
        default = self._signature.parameters[name].default
        baked = self._constants.get(name, None if default is inspect.Parameter.empty else default)
        if not _same(value, baked):
            raise InputError(
                f"{self._where} was exported with {name}={baked!r}, but the pipeline passes {value!r}: "
                f"use the exported value, or run `export(...)` and `build(...)` again"
            )


def _tensors(name: str, value: Any) -> Iterator[tuple[str, tuple[int | str, ...], torch.Tensor]]:
    """Every tensor inside nested tuples, lists and dicts: the exporter's name for it (``image_rotary_emb.0``), the keys
    that lead to it, and itself."""
    stack: list[tuple[str, tuple[int | str, ...], Any]] = [(name, (), value)]
    while stack:
        path, keys, item = stack.pop()
        if isinstance(item, torch.Tensor):
            yield path, keys, item
        elif isinstance(item, (tuple, list)):
            stack.extend((f"{path}.{index}", (*keys, index), part) for index, part in enumerate(item))
        elif isinstance(item, Mapping):
            stack.extend((f"{path}.{key}", (*keys, key), part) for key, part in item.items())


def _form_of(value: Any) -> Any:
    """Shape and dtype of a tensor, the value of anything plain; nested as the value is.

    Raises:
        TypeError: it is neither, so that two that compare equal may still differ.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype
    if isinstance(value, (tuple, list)):
        return tuple(map(_form_of, value))
    if isinstance(value, Mapping):
        return tuple((key, _form_of(item)) for key, item in value.items())
    raise TypeError(type(value))


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
    raise InputError(f"{where} takes {spec}, but the pipeline passes shape {list(value.shape)}: {other_size(spec)}")
