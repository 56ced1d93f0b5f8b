"""The result of calibration, and its file ``aas.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError, safe_open

from f3prune.core.errors import ArtifactError
from f3prune.core.json_values import parse_json
from f3prune.core.weights.safetensors_stream import save_streaming
from f3prune.families import Layout, TokenGrid

FORMAT = "2"


@dataclass(frozen=True)
class SiteInfo:
    """Layout and number of heads of a calibrated site."""

    layout: Layout
    heads: int


@dataclass(frozen=True)
class Calibration:
    """Frame mass of every site.

    Attributes:
        family: name of the model family.
        timesteps: the T timesteps, in the order of denoising.
        sites: site name → layout and heads, in module order.
        mass: site name → M, ``t h f (f+1)`` float32.
        grid: frames, rows and columns of the tokens of spatiotemporal sites; ``None`` where the denoiser did not run.
        metadata: provenance: model, prompts, seed, steps, versions.
    """

    family: str
    timesteps: tuple[float, ...]
    sites: Mapping[str, SiteInfo]
    mass: Mapping[str, torch.Tensor]
    grid: TokenGrid | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        """Write ``aas.safetensors``: tensors ``M/<site>``, the rest as metadata."""
        header = {
            "format": FORMAT,
            "family": self.family,
            "timesteps": json.dumps(list(self.timesteps)),
            "sites": json.dumps({name: [s.layout, s.heads] for name, s in self.sites.items()}),
            "grid": json.dumps(self.grid and astuple(self.grid)),
            "metadata": json.dumps(dict(self.metadata), sort_keys=True),
        }
        save_streaming({f"M/{name}": m for name, m in self.mass.items()}, Path(path), header)

    @classmethod
    def load(cls, path: Path | str) -> Calibration:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: the file is missing, truncated, of another version or inconsistent.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise ArtifactError(
                        f"{path} has format {header.get('format')!r}, expected {FORMAT!r}: run `calibrate(...)` again"
                    )
                sites = {
                    name: SiteInfo(_layout(layout), int(heads))
                    for name, (layout, heads) in parse_json(header["sites"]).items()
                }
                return cls(
                    family=header["family"],
                    timesteps=tuple(parse_json(header["timesteps"])),
                    sites=sites,
                    mass={name: file.get_tensor(f"M/{name}") for name in sites},
                    grid=None if (sizes := parse_json(header["grid"])) is None else TokenGrid(*sizes),
                    metadata=parse_json(header["metadata"]),
                )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} is not a calibration ({error}): run `calibrate(...)` again") from error


def _layout(name: str) -> Layout:
    for layout in get_args(Layout):
        if layout == name:
            return layout  # type: ignore[no-any-return]
    raise ValueError(f"unknown layout {name!r}")
