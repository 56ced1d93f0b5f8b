"""How much is pruned and by what measure: from a calibration to masks."""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from torch import nn

from f3prune.calibration.aas import head_scores
from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.masks import Masks, Stage
from f3prune.calibration.replacements import Replacement, replacement_of
from f3prune.calibration.score_table import Aggregate, Granularity, ScoreTable, units
from f3prune.calibration.scores import Measurement, score_of
from f3prune.calibration.unit_masks import site_masks
from f3prune.core.choices import AGGREGATES, DEFAULT, GRANULARITIES
from f3prune.core.errors import InputError, UnknownSiteError
from f3prune.families import Layout, registry

AUTO = "auto"
"""Of ``PruneConfig.mode``: a replacement for every site, by ``f3prune.calibration.auto``."""
Calls = Iterable[tuple[float, Mapping[str, Any]]]


@dataclass(frozen=True)
class PruneConfig:
    """How much is pruned, in what units, and what takes a pruned unit's place.

    Attributes:
        alpha: pruning ratio in [0, 1]: ``floor(alpha · N)`` of the N unprotected units go.
        granularity: unit: ``layer``, ``head`` or ``frame-pair``.
        aggregate: sum scores over ``timesteps`` only, or over ``layers`` too so that all sites share one mask.
        mode: what takes a pruned unit's place, a name of ``f3prune.calibration.replacements`` with its options behind
            colons: ``local`` (a query attends to its own frame and to text), ``drop`` (the unit's contribution goes),
            ``static`` (temporal attention keeps its mean map), ``window:1`` (one frame on each side is seen as well)
            or ``pooled:4:1`` (one frame on each side is seen whole, all others in patches of 4 × 4 tokens). ``auto``
            chooses one for every layer, or none; ``alpha`` is then the share of the multiplications at the sites that
            is saved. By default what ``default_mode`` says for the model.
        stages: number of contiguous ranges of denoising steps, each with masks of its own.
        protect: globs of site names that are never pruned and not counted.
        score: what units are ranked by, the least first: ``aas``; ``leave-one-out``, what the denoiser's output loses
            without the unit; ``greedy``, the same again after every unit that went; ``magnitude`` of its weights;
            ``random`` and ``reversed`` (AAS upside down) to compare with. By default leave-one-out, and AAS for frame
            pairs.
        score_seed: seed of ``random``.
        speedup: with mode ``auto``, in place of ``alpha``: by what factor the products of a whole call are to fall,
            above 1.
        candidates: with mode ``auto``: the modes that it chooses from; empty means all that suit the model.
        refit: generations of the dense model that output projections are refitted on, see
            ``f3prune.calibration.refit``; 0 leaves them as they are.

    Raises:
        InputError: a value is out of range, or two of them do not go together.

    Examples:
        >>> PruneConfig(0.5, mode="window").mode
        'window:1'
        >>> PruneConfig(0.5).score, PruneConfig(0.5, "frame-pair").score
        ('leave-one-out', 'aas')
    """

    alpha: float
    granularity: Granularity = "layer"
    aggregate: Aggregate = "timesteps"
    mode: str = DEFAULT
    stages: int = 1
    protect: tuple[str, ...] = ()
    score: str = DEFAULT
    score_seed: int = 0
    speedup: float | None = None
    candidates: tuple[str, ...] = ()
    refit: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(f"`alpha` is {self.alpha}, expected a pruning ratio between 0 and 1")
        for name, known in (("granularity", GRANULARITIES), ("aggregate", AGGREGATES)):
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        if self.score == DEFAULT:
            object.__setattr__(self, "score", default_score(self.granularity))
        if self.stages < 1:
            raise InputError(f"`stages` is {self.stages}, expected at least 1")
        if self.mode == AUTO:
            self._check_auto()
            return
        if self.mode == DEFAULT and self.granularity == "frame-pair":
            object.__setattr__(self, "mode", "local")
        if self.speedup is not None or self.candidates:
            given = "speedup" if self.speedup is not None else "candidates"
            raise InputError(f"`{given}` is for `mode='auto'`, not {self.mode}: leave it out, or use `mode='auto'`")
        if self.mode != DEFAULT:
            # Written out in full, so that equal choices are equal.
            object.__setattr__(self, "mode", self.replacement.spec)
            if self.granularity not in self.replacement.granularities:
                raise InputError(
                    f"mode {self.mode} takes the place of whole heads and has no meaning for frame pairs: "
                    "use `mode='local'`"
                )
        if (refusal := score_of(self.score).refusal(self.granularity)) is not None:
            raise InputError(refusal)

    def _check_auto(self) -> None:
        for name, value, only in (
            ("granularity", self.granularity, "layer"),
            ("aggregate", self.aggregate, "timesteps"),
            ("score", self.score, "leave-one-out"),
        ):
            if value != only:
                raise InputError(f"`mode='auto'` goes by `{name}` {only}, not {value}: leave it out, or choose a mode")
        if self.speedup is not None and self.speedup <= 1.0:
            raise InputError(f"`speedup` is {self.speedup:g}, expected more than 1: how many times as fast")
        object.__setattr__(self, "candidates", tuple(replacement_of(spec).spec for spec in self.candidates))

    @property
    def replacement(self) -> Replacement:
        """What takes a pruned unit's place.

        Raises:
            InputError: of mode ``auto``, which chooses one for every site, and before ``settled`` of the default.
        """
        if self.mode == DEFAULT:
            raise InputError("the default mode depends on the model: give `mode`, or use settled(config, calibration)")
        if self.mode == AUTO:
            raise InputError("mode auto chooses a replacement for every site: use f3prune.calibration.auto.assign")
        return replacement_of(self.mode)


def default_score(granularity: Granularity) -> str:
    """What units are ranked by unless another score is asked for.

    Leave-one-out, which at equal ratio keeps more of the video than AAS does (docs/fidelity.md). AAS for frame pairs:
    there are too many of them to leave out one at a time.
    """
    return "aas" if granularity == "frame-pair" else "leave-one-out"


def default_mode(layouts: Collection[Layout], autoregressive: bool = False) -> str:
    """What takes a pruned unit's place unless another mode is asked for.

    ``static`` for temporal attention, which at equal ratio keeps far more of the video than ``local`` does, at the same
    speed (docs/fidelity.md); ``local`` for everything else: what stand-ins keep there, they pay for with speed.
    """
    return "static" if set(layouts) == {"temporal"} and not autoregressive else "local"


def settled(config: PruneConfig, calibration: Calibration) -> PruneConfig:
    """The configuration with the default mode of these sites, if no other was asked for.

    Raises:
        UnknownSiteError: a ``protect`` glob matches no site.
    """
    if config.mode != DEFAULT:
        return config
    layouts = [calibration.sites[name].layout for name in unprotected(list(calibration.sites), config.protect)]
    return replace(config, mode=default_mode(layouts, registry()[calibration.family].autoregressive))


def suits_pairs(mode: str, score: str) -> bool:
    """Whether frame pairs can go in this mode by this score."""
    if mode == AUTO or "frame-pair" not in replacement_of(mode).granularities:
        return False
    return score_of(score).refusal("frame-pair") is None


def select_masks(calibration: Calibration, config: PruneConfig, table: ScoreTable | None = None) -> Masks:
    """Choose the units of smallest score; ties go by site order. Deterministic, and needs no model.

    Args:
        calibration: of the model.
        config: how much goes, and by what score.
        table: what ``rank_units`` gives; not needed for scores that calibration alone gives, such as ``aas``.

    Returns:
        Masks of every stage, for ``prune_denoiser``.

    Raises:
        InputError: more stages than steps, a combination that has no meaning, or scores that are missing.
        UnknownSiteError: a ``protect`` glob matches no site.

    Examples:
        >>> from f3prune.calibration import calibrate, denoise_synthetic
        >>> from f3prune.testing import TINY_SHAPES, tiny_denoiser
        >>> wan = tiny_denoiser("wan")
        >>> measured = calibrate(wan, lambda: denoise_synthetic(wan, TINY_SHAPES["wan"], steps=2))
        >>> masks = select_masks(measured, PruneConfig(alpha=0.5, granularity="head", score="aas"))
        >>> sites = masks.stages[0].sites.values()
        >>> sum(len(mask.pruned_heads) for mask in sites), sum(mask.heads for mask in sites)
        (4, 8)
    """
    config = settled(config, calibration)
    candidates = unprotected(list(calibration.sites), config.protect)
    if config.granularity == "frame-pair":
        _refuse_pairs(calibration, candidates)
    _refuse_mode(calibration, candidates, config.replacement)
    table = _table(calibration, config) if table is None else table
    return Masks(
        family=calibration.family,
        alpha=config.alpha,
        granularity=config.granularity,
        aggregate=config.aggregate,
        mode=config.mode,
        score=config.score,
        stages=tuple(
            _select_stage(calibration, config, table, candidates, *found)
            for found in stage_ranges(calibration, config.stages)
        ),
    )


def stage_ranges(calibration: Calibration, stages: int) -> list[tuple[tuple[int, int], tuple[float, float]]]:
    """``(first, last + 1)`` step and ``(highest, lowest)`` timestep of every stage.

    Raises:
        InputError: there are more stages than steps.
    """
    count = len(calibration.timesteps)
    if stages > count:
        raise InputError(f"`stages` is {stages}, but calibration has only {count} steps: use at most {count}")
    found = []
    for steps in itertools.pairwise(round(count * k / stages) for k in range(stages + 1)):
        timesteps = calibration.timesteps[slice(*steps)]
        found.append((steps, (max(timesteps), min(timesteps))))
    return found


def unprotected(names: list[str], globs: tuple[str, ...]) -> list[str]:
    """The sites that no glob keeps out of pruning, in their order.

    Raises:
        UnknownSiteError: a glob matches no site.
    """
    for glob in globs:
        if not fnmatch.filter(names, glob):
            raise UnknownSiteError(
                f"`protect` {glob!r} matches none of the {len(names)} sites, which are named like "
                f"{names[0]}, {names[-1]}"
            )
    return [n for n in names if not any(fnmatch.fnmatchcase(n, glob) for glob in globs)]


def _refuse_pairs(calibration: Calibration, candidates: list[str]) -> None:
    for name in candidates:
        if calibration.sites[name].layout == "sparse-causal":
            raise InputError(
                f"granularity frame-pair has no meaning at {name}, where frame i sees frames 0 and i-1 alone: "
                f"use `granularity='layer'` or `'head'`, or `protect` the sparse-causal sites"
            )


def _refuse_mode(calibration: Calibration, candidates: list[str], replacement: Replacement) -> None:
    """Raise what the replacement has against a site that may be pruned."""
    family = registry()[calibration.family]
    for name in candidates:
        info, frames = calibration.sites[name], calibration.mass[name].shape[-2]
        if (found := replacement.refusal(info.layout, family, frames, calibration.grid)) is not None:
            raise InputError(f"{found} (site {name})")


def _table(calibration: Calibration, config: PruneConfig) -> ScoreTable:
    """The scores that calibration alone gives."""
    score = score_of(config.score)
    if score.needs_model:
        raise InputError(
            f"score {config.score} looks at the model: give the table that rank_units makes of it, "
            f"or choose a score that calibration alone gives, such as aas"
        )
    return score.measure(Measurement(calibration, config, _no_model, _no_model, _no_task))


def _no_model() -> Any:
    raise InputError("this score was said to need no model, and asked for it")


def _no_task(title: str, total: int) -> Any:
    del title, total
    return contextlib.nullcontext(lambda: None)


def rank_units(denoiser: nn.Module, calibration: Calibration, config: PruneConfig, calls: Calls = ()) -> ScoreTable:
    """Measure the scores that ``config`` asks for.

    Args:
        denoiser: the dense denoiser; it is as it was when this returns.
        calibration: of it.
        config: what is to be pruned, and by what score.
        calls: recorded calls, ``(timestep, forward arguments)``, of ``record_calls``; scores that measure the output's
            error need some.

    Returns:
        The score of every unit by timestep, ``t`` for layers, ``t h`` for heads, ``t f f`` for frame pairs (float64):
        ``table`` of ``select_masks``.

    Raises:
        InputError: the score needs calls and there are none, or it cannot rank these units.

    Examples:
        >>> from f3prune.calibration import calibrate, denoise_synthetic, record_calls
        >>> from f3prune.testing import TINY_SHAPES, tiny_denoiser
        >>> wan = tiny_denoiser("wan")
        >>> denoise = lambda: denoise_synthetic(wan, TINY_SHAPES["wan"], steps=2)
        >>> config = PruneConfig(alpha=0.5, mode="window:1")
        >>> scores = rank_units(wan, calibrate(wan, denoise), config, record_calls(wan, denoise))
        >>> sorted(scores.total())
        ['blocks.0.attn1', 'blocks.1.attn1']
    """
    config = settled(config, calibration)
    recorded = list(calls)

    def given() -> list[tuple[float, Mapping[str, Any]]]:
        if not recorded:
            raise InputError(f"score {config.score} compares outputs on recorded calls: record some and pass calls")
        return recorded

    return score_of(config.score).measure(Measurement(calibration, config, lambda: denoiser, given, _no_task))


def _select_stage(
    calibration: Calibration,
    config: PruneConfig,
    table: ScoreTable,
    candidates: list[str],
    steps: tuple[int, int],
    bounds: tuple[float, float],
) -> Stage:
    ranked = units(table, config.aggregate, candidates, bounds)
    # Decimal, because floor(0.29 * 100) is 28 in binary floating point.
    count = math.floor(Decimal(str(config.alpha)) * len(ranked))
    pruned = sorted(range(len(ranked)), key=lambda k: (ranked[k].score, k))[:count]
    units_gone = [ranked[k] for k in pruned]
    chosen = site_masks(calibration, units_gone, config.replacement, steps, head_scores(calibration, steps))
    return Stage(steps=steps, timesteps=bounds, sites=chosen)
