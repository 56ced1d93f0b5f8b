"""A denoiser with a stopwatch."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from f3prune.core.calls import StandIn, step_of


class TimedDenoiser(StandIn):
    """Stands in for a denoiser, times every call of it, and knows the timestep of the call that is running.

    Attributes:
        seconds: of every call since ``restart``.
        timestep: of the last call, or of the one that is running.
    """

    def __init__(self, denoiser: nn.Module, device: torch.device) -> None:
        super().__init__(denoiser)
        self.__dict__["seconds"] = []
        self.timestep = 0.0
        self._device = device

    def restart(self) -> None:
        """Forget the times so far."""
        self.seconds.clear()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The inner denoiser's own arguments and result."""
        given = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        if given is not None:
            self.timestep = step_of(given)
        self._synchronize()
        started = time.perf_counter()
        result = self.inner(*args, **kwargs)
        self._synchronize()
        self.seconds.append(time.perf_counter() - started)
        return result

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
