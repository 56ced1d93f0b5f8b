"""Which frames hear of a change in which frame: the temporal-coupling test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from f3prune.core.calls import sample_of
from f3prune.core.errors import InputError
from f3prune.core.json_values import from_json_values, json_values
from f3prune.families import Family, TokenGrid

Denoise = Callable[..., Any]


@dataclass(frozen=True)
class Coupling:
    """How output frames respond to input frames.

    Attributes:
        response: ``[F][F]``; ``response[i][j]`` is the L2 norm of the change in output frame j when frame i of the
            latents is perturbed, over the L2 norm of the perturbation.
        threshold: responses up to this one count as none; 0 suits a denoiser that computes the same numbers for the
            same inputs.
    """

    response: list[list[float]]
    threshold: float = 0.0

    @property
    def frames(self) -> int:
        """F."""
        return len(self.response)

    def responding(self, frame: int) -> list[int]:
        """Frames that respond when ``frame`` is perturbed, ``frame`` itself among them if it does."""
        return [other for other, value in enumerate(self.response[frame]) if not value <= self.threshold]

    def to_json(self) -> dict[str, Any]:
        """JSON values, with what follows from them for readers."""
        return {**json_values(self), "responding": [self.responding(frame) for frame in range(self.frames)]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Coupling:
        """Read :meth:`to_json`'s values."""
        return from_json_values(cls, {name: values[name] for name in ("response", "threshold")})


def coupling(
    denoise: Denoise,
    family: Family,
    inputs: Mapping[str, Any],
    grid: TokenGrid,
    eps: float = 1e-2,
    frames: Sequence[int] | None = None,
) -> Coupling:
    """Perturb one frame of the latents at a time and see which output frames change.

    Args:
        denoise: ``denoise(**inputs, return_dict=False)``, a denoiser of ``family`` or a stand-in for one.
        family: says which argument holds the latents and which axis the frames.
        inputs: forward arguments by name, e.g. a recorded call's.
        grid: how the latents fall into frames.
        eps: size of the perturbation, as a multiple of the latents' root mean square.
        frames: which frames to perturb; all by default, the others' rows stay 0.

    Raises:
        InputError: ``eps`` is not positive, or the inputs lack the latents.
    """
    if not eps > 0:
        raise InputError(f"eps is {eps}: the perturbation must be greater than 0")
    latents = inputs.get(family.latents)
    if not isinstance(latents, torch.Tensor):
        raise InputError(f"the inputs have no {family.latents}; {family.name} keeps its latents there")
    response = [[0.0] * grid.frames for _ in range(grid.frames)]
    scale = eps * float(latents.double().square().mean().sqrt() or 1.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        base = _by_frame(denoise, inputs, family, grid)
        for frame in range(grid.frames) if frames is None else frames:
            changed = latents.detach().clone()
            view = family.frames_first(changed, grid)[frame]
            noise = torch.randn(view.shape, generator=generator).to(view) * scale
            before = view.clone()
            view += noise
            # Low-precision latents take less than was asked for: what counts is what they took.
            size = float((view.double() - before.double()).norm())
            if size == 0:
                raise InputError(f"eps {eps} is too small to change {latents.dtype} latents: give a larger one")
            moved = _by_frame(denoise, {**inputs, family.latents: changed}, family, grid)
            response[frame] = [float((moved[other] - base[other]).norm()) / size for other in range(grid.frames)]
    return Coupling(response)


def _by_frame(denoise: Denoise, inputs: Mapping[str, Any], family: Family, grid: TokenGrid) -> torch.Tensor:
    output = sample_of(denoise(**{**inputs, "return_dict": False}))
    return family.frames_first(output, grid).double()
