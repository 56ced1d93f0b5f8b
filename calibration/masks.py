"""What is pruned: ``masks.json`` (DESIGN §5), and its selection from a calibration."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from calibration.aas import Aggregate, Granularity, head_scores, units
from calibration.calibration_file import Calibration
from f3prune.errors import ArtifactError, InputError, UnknownSiteError
from f3prune.families import Layout

VERSION = 1
Mode = Literal["local", "drop"]


@dataclass(frozen=True)
class PruneConfig:
    """How much is pruned, in what units, and what takes a pruned unit's place.

    Attributes:
        alpha: pruning ratio in [0, 1]: ``floor(alpha · N)`` of the N unprotected units go.
        granularity: unit: ``layer``, ``head`` or ``frame-pair``.
        aggregate: sum scores over ``timesteps`` only, or over ``layers`` too so that all sites share one mask.
        mode: ``local`` (attend to one's own frame and text) or ``drop`` (the unit's contribution goes).
        stages: number of contiguous ranges of denoising steps, each with masks of its own.
        protect: globs of site names that are never pruned and not counted.
    """

    alpha: float
    granularity: Granularity = "layer"
    aggregate: Aggregate = "timesteps"
    mode: Mode = "local"
    stages: int = 1
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(f"alpha is {self.alpha}, expected a pruning ratio between 0 and 1")
        for name, kind in (("granularity", Granularity), ("aggregate", Aggregate), ("mode", Mode)):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise InputError(f"{name} is {value!r}, expected one of {', '.join(get_args(kind))}")
        if self.stages < 1:
            raise InputError(f"stages is {self.stages}, expected at least 1")
        if self.granularity == "frame-pair" and self.mode == "drop":
            raise InputError("mode drop takes whole heads away and has no meaning for frame pairs: use --mode local")


@dataclass(frozen=True)
class SiteMask:
    """What is pruned at one site.

    Attributes:
        layout: token layout of the site.
        frames: F during calibration.
        heads: number of heads of the dense site.
        aas: score of every head, for reports.
        pruned_heads: heads that are pruned, ascending; all of them for a pruned layer.
        kept_pairs: for every query frame the key frames it still attends to, ascending; ``None`` unless pairs are
            pruned.
    """

    layout: Layout
    frames: int
    heads: int
    aas: tuple[float, ...]
    pruned_heads: tuple[int, ...] = ()
    kept_pairs: tuple[tuple[int, ...], ...] | None = None

    @property
    def untouched(self) -> bool:
        """Nothing of this site is pruned."""
        return not self.pruned_heads and self.kept_pairs is None


@dataclass(frozen=True)
class Stage:
    """Masks of one contiguous range of denoising steps.

    ``steps`` is ``(first, last + 1)`` in the calibrated schedule; ``timesteps`` is ``(highest, lowest)`` of them. At
    generation a stage serves every timestep down to its lowest, so the number of steps may differ from calibration's.
    """

    steps: tuple[int, int]
    timesteps: tuple[float, float]
    sites: Mapping[str, SiteMask]


@dataclass(frozen=True)
class Masks:
    """Everything that pruning decides; the content of ``masks.json``."""

    family: str
    alpha: float
    granularity: Granularity
    aggregate: Aggregate
    mode: Mode
    stages: tuple[Stage, ...]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, one trailing newline."""
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Masks:
        """Inverse of ``to_json``.

        Raises:
            ArtifactError: not masks of this version.
        """
        try:
            data = json.loads(text)
            if data.pop("version") != VERSION:
                raise ArtifactError("masks.json has another version: run `f3prune prune` again")
            stages = tuple(
                Stage(
                    _pair(stage["steps"]),
                    _pair(stage["timesteps"]),
                    {name: _site_mask(m) for name, m in stage["sites"].items()},
                )
                for stage in data.pop("stages")
            )
            return cls(**data, stages=stages)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"masks.json is not readable ({error}): run `f3prune prune` again") from error

    @classmethod
    def load(cls, path: Path) -> Masks:
        """Read ``masks.json``."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: run `f3prune prune` first") from error

    def stage_of(self, timestep: float) -> int:
        """Index of the stage that serves ``timestep``: the first whose lowest timestep it reaches, else the last."""
        lows = [stage.timesteps[1] for stage in self.stages]
        return next((index for index, low in enumerate(lows) if timestep >= low), len(lows) - 1)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _pair(values: Any) -> Any:
    first, second = values
    return (first, second)


def _site_mask(data: dict[str, Any]) -> SiteMask:
    pairs = data.pop("kept_pairs")
    return SiteMask(
        layout=data["layout"],
        frames=data["frames"],
        heads=data["heads"],
        aas=tuple(data["aas"]),
        pruned_heads=tuple(data["pruned_heads"]),
        kept_pairs=None if pairs is None else tuple(tuple(row) for row in pairs),
    )


def select_masks(calibration: Calibration, config: PruneConfig) -> Masks:
    """Prune the units of smallest AAS; ties go by site order. Deterministic, needs no model.

    Raises:
        InputError: more stages than steps, or a combination that has no meaning.
        UnknownSiteError: a ``protect`` glob matches no site.
    """
    steps = len(calibration.timesteps)
    if config.stages > steps:
        raise InputError(f"stages is {config.stages}, but calibration has only {steps} steps: use at most {steps}")
    candidates = _unprotected(list(calibration.sites), config.protect)
    if config.granularity == "frame-pair":
        _refuse_pairs(calibration, candidates)
    bounds = [round(steps * k / config.stages) for k in range(config.stages + 1)]
    return Masks(
        family=calibration.family,
        alpha=config.alpha,
        granularity=config.granularity,
        aggregate=config.aggregate,
        mode=config.mode,
        stages=tuple(
            _select_stage(calibration, config, candidates, (first, last)) for first, last in itertools.pairwise(bounds)
        ),
    )


def _unprotected(names: list[str], globs: tuple[str, ...]) -> list[str]:
    for glob in globs:
        if not fnmatch.filter(names, glob):
            raise UnknownSiteError(
                f"--protect {glob!r} matches none of the {len(names)} sites, which are named like "
                f"{names[0]}, {names[-1]}"
            )
    return [n for n in names if not any(fnmatch.fnmatchcase(n, glob) for glob in globs)]


def _refuse_pairs(calibration: Calibration, candidates: list[str]) -> None:
    for name in candidates:
        if calibration.sites[name].layout == "sparse-causal":
            raise InputError(
                f"granularity frame-pair has no meaning at {name}, where frame i sees frames 0 and i-1 alone: "
                f"use --granularity layer or head, or --protect the sparse-causal sites"
            )


def _select_stage(
    calibration: Calibration, config: PruneConfig, candidates: list[str], steps: tuple[int, int]
) -> Stage:
    ranked = units(calibration, config.granularity, config.aggregate, candidates, steps)
    # Decimal, because floor(0.29 * 100) is 28 in binary floating point.
    count = math.floor(Decimal(str(config.alpha)) * len(ranked))
    pruned = sorted(range(len(ranked)), key=lambda k: (ranked[k].score, k))[:count]
    heads: dict[str, set[int]] = {name: set() for name in calibration.sites}
    pairs: dict[str, set[tuple[int, int]]] = {name: set() for name in calibration.sites}
    for unit in (ranked[k] for k in pruned):
        for name in unit.sites:
            if unit.pair is not None:
                pairs[name].add(unit.pair)
            else:
                heads[name].update(range(calibration.sites[name].heads) if unit.head is None else [unit.head])
    aas = head_scores(calibration, steps)
    timesteps = calibration.timesteps[steps[0] : steps[1]]
    return Stage(
        steps=steps,
        timesteps=(max(timesteps), min(timesteps)),
        sites={
            name: SiteMask(
                layout=info.layout,
                frames=calibration.mass[name].shape[-2],
                heads=info.heads,
                aas=tuple(round(float(s), 6) for s in aas[name]),
                pruned_heads=tuple(sorted(heads[name])),
                kept_pairs=_kept(pairs[name], calibration.mass[name].shape[-2]),
            )
            for name, info in calibration.sites.items()
        },
    )


def _kept(pruned: set[tuple[int, int]], frames: int) -> tuple[tuple[int, ...], ...] | None:
    if not pruned:
        return None
    return tuple(tuple(j for j in range(frames) if (i, j) not in pruned) for i in range(frames))
