"""Seeded forward arguments of tiny denoisers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from f3prune.families import family_of
from f3prune.testing import TINY_SHAPES


def synthetic(denoiser: nn.Module, variant: str, batch: int, seed: int = 5) -> dict[str, Any]:
    """Synthetic forward arguments of the variant's tiny latent shape."""
    generator = torch.Generator().manual_seed(seed)
    return family_of(denoiser).synthetic_inputs(denoiser, TINY_SHAPES[variant], batch, generator)
