"""From the units that go to the masks of every site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.masks import Masks, SiteMask, Stage
from f3prune.calibration.replacements import Replacement
from f3prune.calibration.score_table import Aggregate, Granularity, ScoreTable, Unit, units


def every_unit(
    calibration: Calibration,
    granularity: Granularity,
    aggregate: Aggregate = "timesteps",
    candidates: Sequence[str] | None = None,
) -> list[Unit]:
    """All units of the candidate sites, of all sites without, in site order; their scores are zero.

    Raises:
        InputError: they cannot be aggregated over layers.
    """
    table = filled(calibration, granularity, calibration.timesteps[:1], 0.0)
    return units(table, aggregate, list(calibration.sites) if candidates is None else candidates)


def filled(
    calibration: Calibration, granularity: Granularity, timesteps: tuple[float, ...], value: float
) -> ScoreTable:
    """A table that gives every unit the same score, to be written into."""
    axes = unit_axes(calibration, granularity)
    values = {name: torch.full((len(timesteps), *axes[name]), value, dtype=torch.float64) for name in axes}
    return ScoreTable(granularity, timesteps, values)


def unit_axes(calibration: Calibration, granularity: Granularity) -> dict[str, tuple[int, ...]]:
    """Site → the shape of its scores at one timestep: ``()`` for layers, ``h`` for heads, ``f f`` for frame pairs."""
    axes: dict[str, tuple[int, ...]] = {}
    for name, info in calibration.sites.items():
        frames = calibration.mass[name].shape[-2]
        axes[name] = {"layer": (), "head": (info.heads,), "frame-pair": (frames, frames)}[granularity]
    return axes


def site_masks(
    calibration: Calibration,
    pruned: Iterable[Unit],
    replacement: Replacement,
    steps: tuple[int, int],
    aas: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, SiteMask]:
    """What is left of every site when these units go.

    Args:
        calibration: of the model.
        pruned: the units.
        replacement: what takes their place.
        steps: first and last + 1 of the denoising steps that it is for.
        aas: site → AAS of its heads ``h``, to be shown with the masks; zeros without.
    """
    heads: dict[str, set[int]] = {name: set() for name in calibration.sites}
    pairs: dict[str, set[tuple[int, int]]] = {name: set() for name in calibration.sites}
    for unit in pruned:
        for name in unit.sites:
            if unit.pair is not None:
                pairs[name].add(unit.pair)
            else:
                heads[name].update(range(calibration.sites[name].heads) if unit.head is None else [unit.head])
    found = {}
    for name, info in calibration.sites.items():
        frames = calibration.mass[name].shape[-2]
        mean = calibration.mass[name][slice(*steps)].mean(0)
        found[name] = SiteMask(
            layout=info.layout,
            frames=frames,
            heads=info.heads,
            aas=tuple(0.0 if aas is None else round(float(aas[name][head]), 6) for head in range(info.heads)),
            pruned_heads=tuple(sorted(heads[name])),
            kept_pairs=_kept(pairs[name], frames),
            replacement=replacement.for_site(mean, tuple(sorted(heads[name]))) if heads[name] or pairs[name] else None,
        )
    return found


def one_stage(
    calibration: Calibration, granularity: Granularity, replacement: Replacement, pruned: Iterable[Unit]
) -> Masks:
    """Masks that prune these units at every timestep, to try them with."""
    timesteps = calibration.timesteps
    steps = (0, len(timesteps))
    stage = Stage(steps, (max(timesteps), min(timesteps)), site_masks(calibration, pruned, replacement, steps))
    return Masks(calibration.family, 0.0, granularity, "timesteps", replacement.spec, (stage,))


def _kept(pruned: set[tuple[int, int]], frames: int) -> tuple[tuple[int, ...], ...] | None:
    if not pruned:
        return None
    return tuple(tuple(j for j in range(frames) if (i, j) not in pruned) for i in range(frames))
