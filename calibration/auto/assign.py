"""Which replacement stands at which site: offers measured one by one, the best few assignments measured together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from f3prune.calibration.aas import head_scores
from f3prune.calibration.auto.knapsack import Item, least_losses
from f3prune.calibration.auto.products import Products
from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.masks import Masks, SiteMask, Stage
from f3prune.calibration.replacements import Replacement, mode_names, replacement_of
from f3prune.calibration.score_table import ScoreTable, Unit
from f3prune.calibration.selection import PruneConfig, stage_ranges, unprotected
from f3prune.calibration.unit_masks import one_stage, site_masks
from f3prune.core.errors import InputError
from f3prune.families import registry

TRIED_TOGETHER = 6
"""Assignments of all modes that are measured as a whole in every stage."""
FINALISTS = 3
"""Assignments of which videos are made, for the last word; the best of a single mode is one more."""


@dataclass(frozen=True)
class Offer:
    """One replacement at one site, in one stage.

    Attributes:
        site: the site.
        mode: the replacement, with its options.
        error: squared relative error of the denoiser's output with it alone.
        saved: share of all that is multiplied at the unprotected sites.
        chosen: it stands there now.
    """

    site: str
    mode: str
    error: float
    saved: float
    chosen: bool


@dataclass(frozen=True)
class Choices:
    """What was offered, and what was taken.

    Attributes:
        masks: the result.
        offers: of every stage.
        errors: squared relative error of every stage's assignments, measured as a whole, in the order of their sums.
        psnr: of videos of the assignments with the least errors, in their order, against the dense model's, in dB: the
            best was taken. Where no videos were made the least error was.
        saved: share of all that is multiplied at the unprotected sites, of every stage.
        speedup: of the products of a whole call, of every stage: no engine gains more.
    """

    masks: Masks
    offers: tuple[tuple[Offer, ...], ...]
    errors: tuple[tuple[float, ...], ...]
    psnr: tuple[float, ...]
    saved: tuple[float, ...]
    speedup: tuple[float, ...]


def candidates(
    calibration: Calibration, config: PruneConfig, offered: Sequence[str] | None = None
) -> dict[str, list[Replacement]]:
    """Unprotected site → what can stand there.

    Args:
        calibration: of the model.
        config: ``candidates`` of it; ``offered``, without.
        offered: modes with options; by default what all modes offer by themselves.

    Raises:
        InputError: a candidate suits no site.
        UnknownSiteError: a ``protect`` glob matches no site.
    """
    family = registry()[calibration.family]
    if offered is None:
        offered = [spec for name in mode_names() for spec in replacement_of(name).offered]
    specs = config.candidates or tuple(offered)
    found: dict[str, list[Replacement]] = {}
    refusals: dict[str, str] = {}
    for name in unprotected(list(calibration.sites), config.protect):
        found[name] = []
        for spec in specs:
            replacement = replacement_of(spec)
            frames = calibration.mass[name].shape[-2]
            refusal = replacement.refusal(calibration.sites[name].layout, family, frames, calibration.grid)
            if refusal is None:
                found[name].append(replacement)
            else:
                refusals.setdefault(spec, refusal)
    suited = {replacement.spec for options in found.values() for replacement in options}
    for spec in config.candidates:
        if spec not in suited:
            raise InputError(refusals[spec])
    return found


def modes_to_compare(calibration: Calibration) -> tuple[str, ...]:
    """What comparisons try of a model unless they are told: what its replacements name for it (``compared``)."""
    specs = tuple(spec for name in mode_names() for spec in replacement_of(name).compared)
    offers = candidates(calibration, PruneConfig(0.0, mode="auto"), specs).values()
    suited = {one.spec for options in offers for one in options}
    return tuple(spec for spec in specs if spec in suited)


def everywhere(calibration: Calibration, mode: str | None) -> Masks:
    """Masks with a replacement at every site that it suits; with none, for ``None``."""
    family = registry()[calibration.family]
    replacement = replacement_of(mode or "local")
    gone: list[Unit] = []
    for name, info in calibration.sites.items():
        frames = calibration.mass[name].shape[-2]
        if mode is not None and replacement.refusal(info.layout, family, frames, calibration.grid) is None:
            gone.append(Unit((name,), 0.0))
    return one_stage(calibration, "layer", replacement, gone)


def assign(
    calibration: Calibration,
    config: PruneConfig,
    tables: Mapping[str, ScoreTable],
    dense: Products,
    pruned: Mapping[str, Products],
    together: Callable[[Masks, tuple[float, float]], float],
    videos: Callable[[Sequence[Masks]], Sequence[float]] | None = None,
) -> Choices:
    """Choose a replacement for every site, or none, stage by stage.

    The errors of single replacements only propose: they add up as long as they are small. A few proposals are measured
    as a whole, and the last word on the best of them have videos: an output's error weighs all steps alike.

    Args:
        calibration: of the model.
        config: mode ``auto``; ``alpha`` is the share of all multiplications at unprotected sites that is to be saved,
            unless ``speedup`` says what the products of a whole call are to gain.
        tables: mode with options → leave-one-out errors of every site.
        dense: products of the dense model.
        pruned: mode with options → products with it at every site.
        together: masks and the ``(highest, lowest)`` timestep of a stage → squared relative error there.
        videos: masks → PSNR of videos of each against the dense model's.

    Raises:
        InputError: so much cannot be saved; the message names the most.
    """
    options = candidates(calibration, config)
    at_sites = sum(dense.sites[name].total for name in options)
    wanted = config.alpha * at_sites if config.speedup is None else dense.total * (1 - 1 / config.speedup)
    found: list[_Measured] = []
    for steps, bounds in stage_ranges(calibration, config.stages):
        groups = _groups(options, tables, dense, pruned, bounds)
        proposals = _proposals(groups, wanted)
        if not proposals:
            raise InputError(_too_much(config, groups, dense, at_sites))
        aas = head_scores(calibration, steps)
        made = [Stage(steps, bounds, _sites(calibration, chosen, steps, aas)) for chosen in proposals]
        errors = [together(_masks(calibration, config, (stage,)), bounds) for stage in made]
        found.append(_Measured(groups, proposals, made, errors))
    finalists = [list(places) for places in zip(*(one.finalists for one in found), strict=False)]
    psnr: tuple[float, ...] = ()
    if videos is not None and len(finalists) > 1:
        psnr = tuple(videos([_masks(calibration, config, _stages(found, places)) for places in finalists]))
    best = finalists[psnr.index(max(psnr)) if psnr else 0]
    savings = [sum(i.saved for i in one.proposals[k].values()) for one, k in zip(found, best, strict=True)]
    if config.speedup is not None:
        config = replace(config, alpha=round(savings[0] / at_sites, 4))
    return Choices(
        _masks(calibration, config, _stages(found, best)),
        tuple(one.offers(place, at_sites) for one, place in zip(found, best, strict=True)),
        tuple(tuple(one.errors) for one in found),
        psnr,
        tuple(saved / at_sites for saved in savings),
        tuple(dense.total / (dense.total - saved) for saved in savings),
    )


@dataclass(frozen=True)
class _Measured:
    """The proposals of one stage, the masks that they are, and their errors."""

    groups: Mapping[str, Sequence[Item]]
    proposals: Sequence[Mapping[str, Item]]
    stages: Sequence[Stage]
    errors: Sequence[float]

    @property
    def finalists(self) -> list[int]:
        """Proposals, the least error first: one of every set of modes, and the best of a single mode.

        An error tells alike assignments apart; of unlike ones it may prefer what ruins the video.
        """
        ranked = sorted(range(len(self.errors)), key=lambda place: (self.errors[place], place))
        modes = {place: frozenset(str(item.name) for item in self.proposals[place].values()) for place in ranked}
        names = {place: frozenset(_name(item) for item in self.proposals[place].values()) for place in ranked}
        first: dict[frozenset[str], int] = {}
        for place in ranked:
            first.setdefault(names[place], place)
        found = list(first.values())[:FINALISTS]
        single = next((place for place in ranked if len(modes[place]) == 1), None)
        return found if single is None or single in found else [*found, single]

    def offers(self, chosen: int, at_sites: float) -> tuple[Offer, ...]:
        """All items, those of one proposal marked."""
        taken = self.proposals[chosen]
        return tuple(
            Offer(name, str(item.name), item.loss, item.saved / at_sites, taken.get(name) == item)
            for name, items in self.groups.items()
            for item in items
        )


def _proposals(groups: Mapping[str, Sequence[Item]], wanted: float) -> list[dict[str, Item]]:
    """Assignments of least summed error: of all modes, without each mode of the first, and of each mode alone."""
    found = least_losses(groups, wanted, TRIED_TOGETHER)
    for gone in sorted({_name(item) for item in found[0].values()} if found else ()):
        left = {site: [item for item in items if _name(item) != gone] for site, items in groups.items()}
        found += least_losses(left, wanted, TRIED_TOGETHER // 2)
    for alone in dict.fromkeys(item.name for items in groups.values() for item in items):
        left = {site: [item for item in items if item.name == alone] for site, items in groups.items()}
        found += least_losses(left, wanted, 1)
    return [one for place, one in enumerate(found) if one not in found[:place]]


def _name(item: Item) -> str:
    return str(item.name).partition(":")[0]


def _stages(found: Sequence[_Measured], places: Sequence[int]) -> tuple[Stage, ...]:
    return tuple(one.stages[place] for one, place in zip(found, places, strict=True))


def _groups(
    options: Mapping[str, Sequence[Replacement]],
    tables: Mapping[str, ScoreTable],
    dense: Products,
    pruned: Mapping[str, Products],
    bounds: tuple[float, float],
) -> dict[str, list[Item]]:
    totals = {spec: table.total(bounds) for spec, table in tables.items()}
    return {
        name: [
            Item(
                replacement.spec,
                float(totals[replacement.spec][name]),
                float(dense.sites[name].total - pruned[replacement.spec].sites[name].total),
            )
            for replacement in replacements
        ]
        for name, replacements in options.items()
    }


def _too_much(config: PruneConfig, groups: Mapping[str, Sequence[Item]], dense: Products, at_sites: int) -> str:
    most = sum(max((item.saved for item in items), default=0.0) for items in groups.values())
    # Rounded down, so that what the message says can be had.
    if config.speedup is not None:
        bound = int(100 * dense.total / (dense.total - most)) / 100
        return f"`speedup` is {config.speedup:g}, but the products of a call allow {bound:.2f} at most with these modes"
    share = int(100 * most / at_sites) / 100
    return f"`alpha` is {config.alpha:g}, but these modes save {share:.2f} of what the sites multiply at most"


def _sites(
    calibration: Calibration, chosen: Mapping[str, Item], steps: tuple[int, int], aas: Mapping[str, torch.Tensor]
) -> dict[str, SiteMask]:
    found = site_masks(calibration, [], replacement_of("local"), steps, aas)
    for name, item in chosen.items():
        found[name] = site_masks(calibration, [Unit((name,), 0.0)], replacement_of(str(item.name)), steps, aas)[name]
    return found


def _masks(calibration: Calibration, config: PruneConfig, stages: tuple[Stage, ...]) -> Masks:
    return Masks(calibration.family, config.alpha, "layer", "timesteps", config.mode, stages, config.score)
