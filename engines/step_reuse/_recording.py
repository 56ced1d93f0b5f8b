"""What one generation shows of how its steps depend on the denoiser's outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from f3prune.core.calls import StandIn, sample_of, step_of

POSITIONS = 65_536
"""Latents are looked at in so many places, drawn once: norms and fits need no more, and all steps fit in memory."""


@dataclass(frozen=True)
class Recording:
    """One generation, step by step.

    Attributes:
        timesteps: strictly falling.
        outputs: the denoiser's, ``s k p`` float32: step, sample (all calls of the step, all their samples), position.
        effects: what one unit of an error in sample k at step s adds to the last recorded latents, ``s k``; the last
            step's row is zero. Fitted to the recorded latents, so it holds for any scheduler that is affine in the
            latents and the last two outputs.
    """

    timesteps: tuple[float, ...]
    outputs: torch.Tensor
    effects: torch.Tensor


class StepRecorder(StandIn):
    """Stands in for a denoiser and notes latents, timestep and output of every call until ``recording`` is asked."""

    def __init__(
        self,
        denoiser: nn.Module,
        latents: str = "hidden_states",
        channels: Callable[[torch.Tensor], int] = lambda latents: latents.ndim - 1 if latents.ndim == 3 else 2,
    ) -> None:
        """Give a denoiser whose pipeline passes keywords.

        Args:
            denoiser: ``latents, …, timestep -> (output, …)`` or an object with ``sample``.
            latents: name of the argument that is denoised.
            channels: the latents' axis of channels (``Family.channels``); the default is that of frames first.
        """
        super().__init__(denoiser)
        self._latents, self._channels = latents, channels
        self._positions: torch.Tensor | None = None
        self._steps: list[tuple[float, torch.Tensor, list[torch.Tensor]]] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The inner denoiser's arguments and result."""
        result = self.inner(*args, **kwargs)
        output = sample_of(result)
        latents = kwargs.get(self._latents, args[0] if args else None)
        timestep = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        if not torch.is_tensor(latents) or timestep is None:
            raise TypeError(
                f"the pipeline passes no {self._latents} and timestep by name: its steps cannot be recorded"
            )
        value = step_of(timestep)
        # An input may hold an image to start from, an output a variance: what both have is denoised.
        axis = self._channels(latents)
        count = min(latents.shape[axis], output.shape[axis])
        seen = self._look(latents.narrow(axis, 0, count))[0]
        samples = list(self._look(output.narrow(axis, 0, count)))
        if self._steps and self._steps[-1][0] == value:
            self._steps[-1][2].extend(samples)
        else:
            self._steps.append((value, seen, samples))
        return result

    def _look(self, tensor: torch.Tensor) -> torch.Tensor:
        flat = tensor.detach().flatten(1)
        if self._positions is None:
            drawn = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0))
            self._positions = drawn[:POSITIONS]
        return flat[:, self._positions.to(flat.device)].float().cpu()

    def recording(self) -> Recording:
        """What was recorded since the last time, and forget it.

        Raises:
            ValueError: steps differ in how many samples they compute, as when guidance ends half way.
        """
        steps, self._steps = self._steps, []
        if len({len(samples) for _, _, samples in steps}) != 1:
            raise ValueError("the steps of this generation compute different numbers of samples")
        outputs = torch.stack([torch.stack(samples) for _, _, samples in steps])
        effects = _effects([seen for _, seen, _ in steps], outputs)
        return Recording(tuple(value for value, _, _ in steps), outputs, effects)


def _effects(latents: Sequence[torch.Tensor], outputs: torch.Tensor) -> torch.Tensor:
    """Fit ``latents[s+1] = a latents[s] + b · outputs[s] + c · outputs[s-1]``, and follow an error to the end."""
    steps, samples = outputs.shape[:2]
    keep, now, later = [], [], []
    for step in range(steps - 1):
        known = [latents[step], *outputs[step], *(outputs[step - 1] if step else ())]
        matrix = torch.stack([item.double() for item in known], dim=1)
        # Through the pseudo-inverse: both halves of guidance may be the same, and outputs may lie on a line.
        fit = torch.linalg.pinv(matrix.T @ matrix, hermitian=True) @ (matrix.T @ latents[step + 1].double())
        keep.append(float(fit[0]))
        now.append(fit[1 : 1 + samples])
        later.append(fit[1 + samples :] if step else torch.zeros(samples, dtype=torch.float64))
    effects = torch.zeros(steps, samples, dtype=torch.float64)
    for step in range(steps - 1):
        effect = now[step]
        for after in range(step + 1, steps - 1):
            effect = keep[after] * effect + (later[after] if after == step + 1 else 0.0)
        effects[step] = effect
    return effects.float()
