"""Seeded random weights under which every part of a denoiser matters, for measuring structure and speed."""

from __future__ import annotations

import torch
from torch import nn


def randomize_weights(module: nn.Module, seed: int = 0) -> None:
    """Overwrite every parameter with seeded normal values that keep activations of order one, in place.

    Nothing is left at its initial zero (gates, output projections of temporal layers, learned frequencies), queries and
    keys are large enough for attention that is far from uniform, and norms scale by about one.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    norms = {id(m.weight) for m in module.modules() if "Norm" in type(m).__name__ and _has_vector(m)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if id(parameter) in norms:
                values = 1 + 0.1 * values
            elif name.endswith("pos_frequencies"):
                values = 0.5 * values  # radians per step of the grid
            elif parameter.ndim >= 2 and not name.endswith("scale_shift_table"):
                values *= parameter[0].numel() ** -0.5
            else:
                values *= 0.2
            parameter.copy_(values)


def _has_vector(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 1
