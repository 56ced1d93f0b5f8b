"""One call of a denoiser: its arguments by name, and which step of the schedule it belongs to."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from f3prune.core.errors import InputError


class StandIn(nn.Module):
    """Stands in for a denoiser, of which it has every attribute that it lacks itself.

    Attributes:
        inner: the denoiser, kept out of the registry of modules: an engine's must not be moved to a device.
    """

    inner: Any

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.__dict__["inner"] = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["inner"], name)


def bind_arguments(denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of one denoiser call by name, defaults included."""
    # A stand-in takes the arguments of the class whose place it takes.
    bound = inspect.signature(getattr(denoiser, "original_class", type(denoiser)).forward).bind(
        denoiser, *args, **kwargs
    )
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    arguments.pop("self", None)
    return arguments


def step_of(timestep: Any) -> float:
    """The step of the schedule that a call belongs to: its largest timestep.

    Pipelines that start from given frames pass a timestep for every token or frame, and hold clean ones at 0.

    Args:
        timestep: a number, or a tensor of any shape.

    Examples:
        >>> step_of(torch.tensor([[0.0, 937.5, 937.5]]))
        937.5
    """
    return float(timestep.detach().float().max()) if torch.is_tensor(timestep) else float(timestep)


def outputs_of(output: Any, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """All that a denoiser returns, by name.

    Args:
        output: what it returned, see ``sample_of``.
        names: of its outputs, the sample first (``Family.outputs``).

    Raises:
        InputError: it returned fewer.
    """
    found = {names[0]: sample_of(output)}
    for index, name in enumerate(names[1:], start=1):
        several = isinstance(output, (tuple, list))
        part = (output[index] if index < len(output) else None) if several else getattr(output, name, None)
        if not isinstance(part, torch.Tensor):
            raise InputError(f"the denoiser returned no {name} beside its sample, expected {', '.join(names)}")
        found[name] = part
    return found


def sample_of(output: Any) -> torch.Tensor:
    """The tensor in what a denoiser returns: a tensor, a tuple or list that starts with one, or ``.sample``.

    Raises:
        InputError: there is none.
    """
    first = output[0] if isinstance(output, (tuple, list)) else output
    sample = getattr(first, "sample", first)
    if not isinstance(sample, torch.Tensor):
        raise InputError(f"the denoiser returned {type(output).__name__}, expected a tensor, a tuple or .sample")
    return sample
