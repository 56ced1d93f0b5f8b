"""What is pruned: ``masks.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from f3prune.calibration.replacements import Replacement
from f3prune.calibration.score_table import Aggregate, Granularity
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import from_json_values, json_values, parse_json
from f3prune.core.places import read_regular
from f3prune.families import Layout

VERSION = 2


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
        replacement: what takes the place of what is pruned; ``None`` where nothing is.
    """

    layout: Layout
    frames: int
    heads: int
    aas: tuple[float, ...]
    pruned_heads: tuple[int, ...] = ()
    kept_pairs: tuple[tuple[int, ...], ...] | None = None
    replacement: Replacement | None = None

    def __post_init__(self) -> None:
        if not self.untouched and self.replacement is None:
            raise InputError("a mask prunes something and does not say what takes its place: give it a replacement")

    @property
    def stand_in(self) -> Replacement:
        """What takes the place of what is pruned.

        Raises:
            InputError: nothing is pruned.
        """
        if self.replacement is None:
            raise InputError("nothing is pruned at this site, so that nothing takes its place")
        return self.replacement

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
    """Everything that pruning decides; the content of ``masks.json``.

    Attributes:
        family: name of the model family.
        alpha: pruning ratio that was asked for.
        granularity: unit that was ranked.
        aggregate: what scores were summed over.
        mode: mode that was asked for; what stands at a site is the site's ``replacement``.
        stages: masks of every range of denoising steps, from the highest timesteps to the lowest.
        score: what units were ranked by.
        refit: digest of what is folded into output projections beside it; empty where nothing is.

    Examples:
        >>> stages = (Stage((0, 4), (999.0, 600.0), {}), Stage((4, 8), (500.0, 100.0), {}))
        >>> masks = Masks("wan", 0.5, "layer", "timesteps", "local", stages)
        >>> masks.stage_of(700.0), masks.stage_of(550.0), masks.stage_of(1.0)
        (0, 1, 1)
        >>> Masks.from_json(masks.to_json()) == masks
        True
    """

    family: str
    alpha: float
    granularity: Granularity
    aggregate: Aggregate
    mode: str
    stages: tuple[Stage, ...]
    score: str = "aas"
    refit: str = ""

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, one trailing newline."""
        return json.dumps({"version": VERSION, **json_values(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Masks:
        """Inverse of ``to_json``.

        Raises:
            ArtifactError: not masks of this version.
        """
        try:
            data = parse_json(text)
            if data.pop("version") != VERSION:
                raise ArtifactError("masks.json has another version: run `prune(...)` again")
            return from_json_values(cls, data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"masks.json is not readable ({error}): run `prune(...)` again") from error

    @classmethod
    def load(cls, path: Path | str) -> Masks:
        """Read ``masks.json``.

        Raises:
            ArtifactError: the file is missing, or holds no masks of this version.
        """
        try:
            return cls.from_json(read_regular(path).decode(errors="replace"))
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: run `prune(...)` first") from error

    def stage_of(self, timestep: float) -> int:
        """Index of the stage that serves ``timestep``: the first whose lowest timestep it reaches, else the last."""
        lows = [stage.timesteps[1] for stage in self.stages]
        return next((index for index, low in enumerate(lows) if timestep >= low), len(lows) - 1)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
