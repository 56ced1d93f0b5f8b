"""Forward arguments of a denoiser as a flat list of named tensors, and back.

Naming: a tensor argument keeps its name; a tensor inside tuples, lists or dicts is named by the path to it
(``image_rotary_emb.0`` are the cosines of CogVideoX, ``image_rotary_emb.1`` the sines). Arguments without tensors are
constants of the graph. ``timestep`` is never a constant: a plain number becomes a 0-d tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from f3prune.core.errors import ExportError

TIMESTEP = "timestep"
TEXT = "encoder_hidden_states"
_NOT_INPUTS = ("return_dict",)


@dataclass(frozen=True)
class _Leaf:
    """Stands where a tensor was."""

    name: str


@dataclass(frozen=True)
class Arguments:
    """Flattened forward arguments.

    Attributes:
        tensors: by input name, in the order of the call.
        constants: arguments without tensors, JSON values, ``None`` left out.
        structure: the arguments with a marker in place of each tensor.
    """

    tensors: dict[str, torch.Tensor]
    constants: dict[str, Any]
    structure: dict[str, Any]

    def rebuild(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The forward arguments with other tensors in the same places."""
        rebuilt = _rebuild(self.structure, tensors)
        return dict(rebuilt)


def stands_alone(name: str) -> bool:
    """Whether an input is a whole argument, or one of several text embeddings in a tuple (Cosmos 2.5).

    Other tensors inside tuples are tables that hold for every sample.

    Examples:
        >>> [stands_alone(name) for name in ("timestep", "encoder_hidden_states.1", "image_rotary_emb.0")]
        [True, True, False]
    """
    argument, dot, _ = name.partition(".")
    return not dot or argument == TEXT


def flatten_arguments(arguments: Mapping[str, Any]) -> Arguments:
    """Take forward arguments apart.

    Requires:
        tensors, numbers, strings and ``None``, or tuples, lists and string-keyed dicts of them.

    Raises:
        ExportError: an argument is of another kind.
    """
    tensors: dict[str, torch.Tensor] = {}
    constants: dict[str, Any] = {}
    structure: dict[str, Any] = {}
    for name, given in arguments.items():
        if name in _NOT_INPUTS or given is None:
            continue
        value = _as_tensor(given) if name == TIMESTEP else given
        before = len(tensors)
        structure[name] = _strip(name, value, tensors)
        if len(tensors) == before:
            constants[name] = _json(name, value)
    return Arguments(tensors, constants, structure)


def _as_tensor(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float32)


def _strip(path: str, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """``value`` with its tensors moved to ``tensors`` under their paths."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach()
        return _Leaf(path)
    if isinstance(value, Mapping):
        return {key: _strip(f"{path}.{key}", item, tensors) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_strip(f"{path}.{k}", item, tensors) for k, item in enumerate(value))
    return value


def _rebuild(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, _Leaf):
        return tensors[value.name]
    if isinstance(value, Mapping):
        return {key: _rebuild(item, tensors) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_rebuild(item, tensors) for item in value)
    return value


def _json(name: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"forward argument {name} is {type(value).__name__}, which a graph cannot hold: "
            f"pass tensors, numbers, strings, or tuples and dicts of them"
        ) from error
