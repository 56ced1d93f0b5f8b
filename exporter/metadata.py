"""What an exported graph says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
from torch import nn

from f3prune import __version__
from f3prune.calibration import pruning_of
from f3prune.core.errors import InputError, UnknownFamilyError
from f3prune.core.tensors import METADATA_PREFIX
from f3prune.exporter._config import ExportConfig
from f3prune.exporter.arguments import Arguments
from f3prune.families import Family, family_of


def family_if_known(denoiser: nn.Module) -> Family | None:
    """The denoiser's family, or ``None`` for a class without a declaration, which exports all the same."""
    try:
        return family_of(denoiser)
    except UnknownFamilyError:
        return None


def output_names(denoiser: nn.Module) -> tuple[str, ...]:
    """What the denoiser returns, in order, the sample first."""
    family = family_if_known(denoiser)
    return ("sample",) if family is None else family.outputs


def describe(
    denoiser: nn.Module, arguments: Arguments, config: ExportConfig, extra: Mapping[str, str]
) -> dict[str, str]:
    """Metadata properties of the graph.

    Does:
        ``f3prune.version``, ``.family``, ``.dtype``, ``.constants`` (JSON), ``.grid`` (JSON: frames,
        tokens_per_frame), ``.sites`` (JSON: names, those that were pruned away included), and for a pruned denoiser
        ``.alpha``, ``.stage``, ``.masks_digest``, ``.source_digest``.
        ``extra`` comes last and wins; its names may leave the prefix out.
    """
    found: dict[str, Any] = {
        "version": __version__,
        "dtype": config.dtype,
        "constants": json.dumps(arguments.constants, sort_keys=True),
    }
    family = family_if_known(denoiser)
    if family is not None:
        found["family"] = family.name
        found["sites"] = json.dumps(_site_names(denoiser, family))
    if family is not None and not family.autoregressive:
        grid = family.token_grid(denoiser, arguments.rebuild(arguments.tensors))
        found["grid"] = json.dumps({"frames": grid.frames, "tokens_per_frame": grid.tokens_per_frame}, sort_keys=True)
    record = pruning_of(denoiser)
    if record is not None:
        found["alpha"] = repr(float(record.masks.alpha))
        found["stage"] = str(record.stage)
        found["masks_digest"] = record.masks.digest
        found["source_digest"] = record.source_digest
    named = {f"{METADATA_PREFIX}{name}": str(value) for name, value in found.items()}
    given = {
        name if name.startswith(METADATA_PREFIX) else f"{METADATA_PREFIX}{name}": str(value)
        for name, value in extra.items()
    }
    return dict(sorted({**named, **given}.items()))


def label(graph: ir.Model, properties: Mapping[str, str]) -> None:
    """Make ``properties`` all that the graph's metadata holds."""
    graph.metadata_props.clear()
    graph.metadata_props.update(properties)


def _site_names(denoiser: nn.Module, family: Family) -> list[str]:
    """Sites in module order; a pruned denoiser no longer has them all, its masks do."""
    record = pruning_of(denoiser)
    if record is not None:
        return list(record.masks.stages[record.stage].sites)
    try:
        return [site.name for site in family.find_sites(denoiser)]
    except InputError:
        return []
