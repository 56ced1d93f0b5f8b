"""Exports of dense tiny denoisers, each made once in a process."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune.exporter import ExportConfig, ExportResult, export_denoiser
from f3prune.families import family_of
from f3prune.testing import TINY_SHAPES, tiny_denoiser


@dataclass(frozen=True)
class Exported:
    """A dense tiny denoiser and its file."""

    variant: str
    denoiser: nn.Module
    result: ExportResult

    def inputs(self, batch: int, seed: int = 5) -> dict[str, Any]:
        """Synthetic forward arguments."""
        return synthetic(self.denoiser, self.variant, batch, seed)


def synthetic(denoiser: nn.Module, variant: str, batch: int, seed: int = 5) -> dict[str, Any]:
    """Synthetic forward arguments of the variant's tiny latent shape."""
    generator = torch.Generator().manual_seed(seed)
    return family_of(denoiser).synthetic_inputs(denoiser, TINY_SHAPES[variant], batch, generator)


@functools.cache
def _home() -> tempfile.TemporaryDirectory[str]:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="f3prune-exports-")


@functools.cache
def exported(variant: str, dtype: str = "fp32", **options: Any) -> Exported:
    """The same arguments give the same export; tests must not alter it."""
    denoiser = tiny_denoiser(variant)
    name = "-".join([variant, dtype, *(f"{key}-{value}" for key, value in sorted(options.items()))])
    config = ExportConfig(dtype=dtype, **options)  # type: ignore[arg-type]
    result = export_denoiser(denoiser, synthetic(denoiser, variant, 2), Path(_home().name) / name, config)
    return Exported(variant, denoiser, result)
