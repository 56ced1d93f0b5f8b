"""Exports of dense tiny denoisers, each made once in a run of the tests, whichever worker asks first."""

from __future__ import annotations

import atexit
import fcntl
import functools
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune.core.json_values import from_json_values, json_values
from f3prune.exporter import ExportConfig, ExportResult, export_denoiser
from f3prune.families import family_of
from f3prune.testing import TINY_SHAPES, VARIANTS, tiny_denoiser

HOME = "F3PRUNE_TEST_EXPORTS"


LIKE_OTHERS = ("wan_animate", "chronoedit", "anyflow", "helios", "consisid", "easyanimate", "cosmos")
"""Variants of blocks that another variant is exported dense with: these are exported pruned alone."""
EXPORTED_DENSE = tuple(variant for variant in VARIANTS if variant not in LIKE_OTHERS)


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
def home() -> Path:
    """The folder that all workers share, removed when the first process ends: workers inherit its environment."""
    if HOME not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="f3prune-exports-")
        atexit.register(folder.cleanup)
        os.environ[HOME] = folder.name
    return Path(os.environ[HOME])


@functools.cache
def exported(variant: str, dtype: str = "fp32", **options: Any) -> Exported:
    """The same arguments give the same export; tests must not alter it."""
    denoiser = tiny_denoiser(variant)
    name = "-".join([variant, dtype, *(f"{key}-{value}" for key, value in sorted(options.items()))])
    folder, record = home() / name, home() / f"{name}.json"
    with open(home() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            config = ExportConfig(dtype=dtype, **options)  # type: ignore[arg-type]
            made = export_denoiser(denoiser, synthetic(denoiser, variant, 2), folder, config)
            record.write_text(json.dumps(json_values(made)), encoding="utf-8")
    result = from_json_values(ExportResult, json.loads(record.read_text(encoding="utf-8")))
    return Exported(variant, denoiser, result)
