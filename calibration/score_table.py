"""Scores of all units at all timesteps, and the units ranked by them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open

from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import parse_json
from f3prune.core.weights.safetensors_stream import save_streaming

Granularity = Literal["layer", "head", "frame-pair"]
Aggregate = Literal["timesteps", "layers"]
FORMAT = "1"


@dataclass(frozen=True)
class Unit:
    """A prunable unit and its score.

    ``sites`` has one name, or all of them when scores are aggregated over layers. ``head`` or ``pair`` (query frame i,
    key frame j) says which part of each site; both ``None`` means the whole site.
    """

    sites: tuple[str, ...]
    score: float
    head: int | None = None
    pair: tuple[int, int] | None = None


@dataclass(frozen=True)
class ScoreTable:
    """The score of every unit at every timestep at which it was measured.

    Attributes:
        granularity: what a unit is.
        timesteps: the T timesteps, in the order of denoising.
        values: site name → float64 scores in module order: ``t`` for layers, ``t h`` for heads, ``t f f`` for frame
            pairs (query frame, key frame; the diagonal means nothing).
    """

    granularity: Granularity
    timesteps: tuple[float, ...]
    values: Mapping[str, torch.Tensor]

    def total(self, timesteps: tuple[float, float] | None = None) -> dict[str, torch.Tensor]:
        """Scores summed over the timesteps between ``(highest, lowest)``, of all without: site → the other axes.

        A range in which nothing was measured takes the nearest timestep that was.
        """
        rows = list(range(len(self.timesteps)))
        if timesteps is not None:
            highest, lowest = timesteps
            inside = [row for row in rows if lowest <= self.timesteps[row] <= highest]
            middle = (highest + lowest) / 2
            rows = inside or [min(rows, key=lambda row: abs(self.timesteps[row] - middle))]
        return {name: value[rows].sum(0) for name, value in self.values.items()}

    def put(self, unit: Unit, rows: slice | list[int], scores: torch.Tensor | float) -> None:
        """Write a unit's scores at some timesteps into the tables of its sites."""
        for name in unit.sites:
            part = () if unit.head is None else (unit.head,)
            self.values[name][(rows, *(unit.pair or part))] = scores

    def save(self, path: Path | str) -> None:
        """Write a safetensors file: tensors by site, the rest as metadata."""
        header = {
            "format": FORMAT,
            "granularity": self.granularity,
            "timesteps": json.dumps(list(self.timesteps)),
            "sites": json.dumps(list(self.values)),
        }
        save_streaming(self.values, Path(path), header)

    @classmethod
    def load(cls, path: Path | str) -> ScoreTable:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: the file is missing, truncated or of another version.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise ArtifactError(f"{path} has another format: run `prune(...)` again")
                values = {name: file.get_tensor(name) for name in parse_json(header["sites"])}
                return cls(header["granularity"], tuple(parse_json(header["timesteps"])), values)  # type: ignore[arg-type]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} does not hold scores ({error}): run `prune(...)` again") from error


def units(
    table: ScoreTable,
    aggregate: Aggregate,
    candidates: Sequence[str],
    timesteps: tuple[float, float] | None = None,
) -> list[Unit]:
    """All prunable units of the candidate sites, in site order.

    Raises:
        InputError: aggregation over layers was asked for whole layers, or over sites of different shapes.
    """
    scores = {name: value for name, value in table.total(timesteps).items() if name in candidates}
    if table.granularity == "layer":
        if aggregate == "layers":
            raise InputError(
                "aggregate layers sums scores over sites, which leaves nothing to rank at granularity layer: "
                "use `granularity='head'` or `'frame-pair'`, or `aggregate='timesteps'`"
            )
        return [Unit((name,), float(value)) for name, value in scores.items()]
    if aggregate == "timesteps":
        return [unit for name, value in scores.items() for unit in _split((name,), value)]
    shapes = {tuple(value.shape) for value in scores.values()}
    if len(shapes) > 1:
        raise InputError(
            f"aggregate layers needs sites of one shape, this model has {sorted(shapes)} "
            f"({'heads' if table.granularity == 'head' else 'frames'} per site): use `aggregate='timesteps'`"
        )
    return _split(tuple(scores), torch.stack(list(scores.values())).sum(0)) if scores else []


def _split(sites: tuple[str, ...], scores: torch.Tensor) -> list[Unit]:
    """One unit per head of ``h`` scores, or per ordered pair of different frames of ``f f`` scores."""
    if scores.ndim == 1:
        return [Unit(sites, float(s), head=h) for h, s in enumerate(scores)]
    frames = scores.shape[0]
    return [Unit(sites, float(scores[i, j]), pair=(i, j)) for i in range(frames) for j in range(frames) if i != j]
