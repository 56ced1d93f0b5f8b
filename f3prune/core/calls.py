"""One call of a denoiser: its arguments by name, and which step of the schedule it belongs to."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def bind_arguments(denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of one denoiser call by name, defaults included."""
    bound = inspect.signature(type(denoiser).forward).bind(denoiser, *args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    arguments.pop("self", None)
    return arguments


def step_of(timestep: Any) -> float:
    """The step of the schedule that a call belongs to: its largest timestep.

    Pipelines that start from given frames pass a timestep for every token or frame, and hold clean ones at 0.

    Args:
        timestep: a number, or a tensor of any shape.
    """
    return float(timestep.detach().float().max()) if torch.is_tensor(timestep) else float(timestep)
