"""JSON: dataclasses as its values and back, and objects from files. Imports no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from f3prune.core.errors import InputError
from f3prune.core.places import read_regular

T = TypeVar("T")
# JSON has no infinities: they are written as these words.
_WORDS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class OneOfMany(ABC):
    """Base of dataclasses of which a field may hold any: their JSON says which one it is."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The class in some way, and ``fields_as_json``."""

    @classmethod
    @abstractmethod
    def from_json(cls, values: Mapping[str, Any]) -> OneOfMany:
        """Inverse of ``to_json``, whichever class it was, through ``from_fields``."""


def fields_as_json(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, each as ``json_values`` has it."""
    return {field.name: json_values(getattr(value, field.name)) for field in dataclasses.fields(value)}


def from_fields(kind: type[T], values: Any) -> T:
    """Inverse of ``fields_as_json``.

    Raises:
        ValueError, TypeError: see ``from_json_values``.
    """
    make: Any = kind
    odd = set(_typed(dict, values)) ^ {field.name for field in dataclasses.fields(make)}
    if odd:
        raise ValueError(f"unknown or missing: {', '.join(sorted(odd))}")
    hints = _hints(make)
    made: T = make(**{name: _read(hints[name], item) for name, item in values.items()})
    return made


def json_values(value: Any) -> Any:
    """A value as JSON can hold it.

    A dataclass becomes an object of its fields, a tuple a list, a path its text, and a float that is not finite the
    word for it: ``inf``, ``-inf``, ``nan``.

    Example:
        >>> json_values({"bounds": (0, math.inf), "file": Path("run/onnx")})
        {'bounds': [0, 'inf'], 'file': 'run/onnx'}
    """
    if isinstance(value, OneOfMany):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return fields_as_json(value)
    if isinstance(value, Mapping):
        return {key: json_values(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [json_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value


def from_json_values(kind: type[T], values: Any) -> T:
    """The dataclass that ``json_values`` was given.

    Args:
        kind: its class. Fields may be dataclasses, tuples, lists, mappings, paths, plain values, or unions of these,
            of which the first that takes the value counts.
        values: an object of all its fields.

    Raises:
        ValueError, TypeError: not such an object: a field is unknown, missing or of another type.
    """
    made: T = _read(kind, values)
    return made


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, value: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or origin is Literal:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        return _read_one_of([arg for arg in args if arg is not NoneType], value)
    if isinstance(kind, type) and issubclass(kind, OneOfMany):
        return kind.from_json(_typed(dict, value))
    if dataclasses.is_dataclass(kind):
        make: Any = kind
        return from_fields(make, value)
    if origin is tuple:
        items = _typed(list, value)
        kinds = args[:1] * len(items) if args[-1] is ... else args
        return tuple(_read(of, item) for of, item in zip(kinds, items, strict=True))
    if origin is list:
        return [_read(args[0], item) for item in _typed(list, value)]
    if origin is not None and issubclass(origin, Mapping):
        return {key: _read(args[1], item) for key, item in _typed(dict, value).items()}
    if kind is float:
        return float(_WORDS.get(value, value) if isinstance(value, str) else value)
    return kind(value) if kind is Path else _typed(kind, value)


def _read_one_of(kinds: Sequence[Any], value: Any) -> Any:
    for kind in kinds[:-1]:
        with contextlib.suppress(ValueError, TypeError):
            return _read(kind, value)
    return _read(kinds[-1], value)


def _typed(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value


def parse_json(text: str | bytes) -> Any:
    """A JSON value, without what is no JSON but Python reads all the same: NaN and infinities.

    Raises:
        ValueError: not JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode(), parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model.

    Raises:
        InputError: not JSON, or not an object.
    """
    try:
        value = parse_json(read_regular(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): download or save the model again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, expected a JSON object: save the model again")
    return value
