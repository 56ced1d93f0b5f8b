"""Record the calls that a denoising loop makes, so that the same inputs can be given to another denoiser."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from f3prune.core.calls import step_of
from f3prune.core.errors import InputError


@dataclass(frozen=True)
class DenoiserCall:
    """One call of the denoiser in a denoising loop.

    Attributes:
        step: number of the denoising step, from 0; calls in a row with one timestep belong to one step.
        timestep: value that the scheduler passed.
        inputs: forward arguments by name, without ``return_dict``; tensors are copies on the CPU.
        output: what the denoiser answered, on the CPU.
    """

    step: int
    timestep: float
    inputs: dict[str, Any]
    output: torch.Tensor


@contextlib.contextmanager
def record_calls(denoiser: nn.Module) -> Iterator[list[DenoiserCall]]:
    """Record every call of ``denoiser`` made inside the block; the list grows as they come."""
    calls: list[DenoiserCall] = []
    # An EngineDenoiser takes the arguments of the class it stands in for.
    signature = inspect.signature(getattr(denoiser, "original_class", type(denoiser)).forward)

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        bound = dict(list(signature.bind(module, *args, **kwargs).arguments.items())[1:])
        inputs = {name: _on_cpu(value) for name, value in bound.items() if name != "return_dict"}
        timestep = timestep_of(inputs)
        step = 0
        if calls:
            step = calls[-1].step + (timestep != calls[-1].timestep)
        calls.append(DenoiserCall(step, timestep, inputs, sample_of(output).detach().cpu().clone()))

    handle = denoiser.register_forward_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def timestep_of(inputs: Mapping[str, Any]) -> float:
    """The timestep among a denoiser's arguments, as a number.

    Raises:
        InputError: there is none.
    """
    if "timestep" not in inputs:
        raise InputError(f"the denoiser was called without a timestep; its arguments were {', '.join(inputs)}")
    return step_of(inputs["timestep"])


def sample_of(output: Any) -> torch.Tensor:
    """The tensor in what a denoiser returns: a tensor, a tuple, or an output class with ``sample``.

    Raises:
        InputError: there is none.
    """
    if isinstance(output, (tuple, list)):
        output = output[0]
    sample = getattr(output, "sample", output)
    if not isinstance(sample, torch.Tensor):
        raise InputError(f"the denoiser returned {type(output).__name__}, which has no sample")
    return sample


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_on_cpu(item) for item in value)
    return value
