"""Exports of tiny denoisers, each made once in a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_inputs import synthetic
from torch import nn

from f3prune.exporter import ExportConfig, ExportResult, export_denoiser
from f3prune.testing import tiny_denoiser


@dataclass(frozen=True)
class Exported:
    """A dense tiny denoiser and its file."""

    variant: str
    denoiser: nn.Module
    result: ExportResult

    def inputs(self, batch: int, seed: int = 5) -> dict[str, Any]:
        """Synthetic forward arguments."""
        return synthetic(self.denoiser, self.variant, batch, seed)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """``exported(variant, dtype="fp32", **options)``; the same arguments give the same export."""
    made: dict[tuple[Any, ...], Exported] = {}

    def get(variant: str, dtype: str = "fp32", **options: Any) -> Exported:
        key = (variant, dtype, *sorted(options.items()))
        if key not in made:
            denoiser = tiny_denoiser(variant)
            directory: Path = tmp_path_factory.mktemp(f"{variant}-{dtype}")
            config = ExportConfig(dtype=dtype, **options)  # type: ignore[arg-type]
            made[key] = Exported(
                variant, denoiser, export_denoiser(denoiser, synthetic(denoiser, variant, 2), directory, config)
            )
        return made[key]

    return get
