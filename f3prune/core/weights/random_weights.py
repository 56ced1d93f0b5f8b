"""Seeded random weights under which every part of a denoiser matters, for measuring structure and speed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import nn

from f3prune.core.weights.lazy_weights import LazyTensor


def randomize_weights(module: nn.Module, seed: int = 0) -> None:
    """Overwrite every parameter with seeded normal values that keep activations of order one, in place.

    Nothing is left at its initial zero (gates, output projections of temporal layers, learned frequencies), queries and
    keys are large enough for attention that is far from uniform, and norms scale by about one. A parameter's values
    depend on the seed and on its name alone.
    """
    norms = _norms(module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(_values(name, parameter.shape, name in norms, seed))


def lazily_randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter of ``module``, which may lie on the meta device, the values of :func:`randomize_weights`.

    They are float32 and lazy: drawn whenever they are read.
    """
    norms = _norms(module)

    def draw(name: str, shape: torch.Size) -> Callable[[], torch.Tensor]:
        return lambda: _values(name, shape, name in norms, seed)

    for name, parameter in list(module.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        values = LazyTensor.of(parameter.shape, torch.float32, draw(name, parameter.shape))
        setattr(module.get_submodule(owner), leaf, nn.Parameter(values, requires_grad=False))
    return module


def _values(name: str, shape: torch.Size, norm: bool, seed: int) -> torch.Tensor:
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little", signed=True)
    values = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(own_seed))
    if norm:
        return values.mul_(0.1).add_(1)
    if name.endswith("pos_frequencies"):
        return values.mul_(0.5)  # radians per step of the grid
    if len(shape) >= 2 and not name.endswith("scale_shift_table"):
        return values.mul_(shape[1:].numel() ** -0.5)
    return values.mul_(0.2)


def _norms(module: nn.Module) -> set[str]:
    return {
        f"{name}.weight" if name else "weight"
        for name, part in module.named_modules()
        if "Norm" in type(part).__name__ and _has_vector(part)
    }


def _has_vector(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 1
