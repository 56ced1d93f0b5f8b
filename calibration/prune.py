"""Bake masks into a denoiser: less work, not masked work."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from f3prune.calibration.attention_hook import AttentionHook, Handler
from f3prune.calibration.bake.surgery import put
from f3prune.calibration.masks import Masks
from f3prune.calibration.refitting import Refit, drops_channel, frame_layer
from f3prune.calibration.replacements import Place
from f3prune.core.errors import InputError, UnknownSiteError
from f3prune.families import family_of

_RECORD = "_f3prune_pruning"


@dataclass(frozen=True)
class PruningRecord:
    """What was baked into a denoiser: the masks, which stage of them, and the digest of the dense source."""

    masks: Masks
    stage: int = 0
    source_digest: str = ""


def pruning_of(denoiser: nn.Module) -> PruningRecord | None:
    """The record of a baked denoiser, ``None`` for a dense one."""
    record = getattr(denoiser, _RECORD, None)
    return record if isinstance(record, PruningRecord) else None


def prune_denoiser(
    denoiser: nn.Module, masks: Masks, stage: int = 0, source_digest: str = "", refit: Refit | None = None
) -> nn.Module:
    """Bake one stage of ``masks`` into ``denoiser``, in place.

    The class, configuration and forward signature stay, so it drops into its pipeline. With nothing pruned, nothing
    changes.

    Args:
        denoiser: the dense denoiser the masks were made for.
        masks: what to prune.
        stage: index into ``masks.stages``.
        source_digest: digest of the dense weights, kept in the record.
        refit: what ``f3prune.calibration.refit`` gave with the masks.

    Returns:
        The same object.

    Raises:
        InputError: already pruned, of another family, with adapters or quantised layers at a pruned site, or masks and
            refit do not belong together.
        UnknownSiteError: masks and denoiser have different sites.

    Examples:
        >>> from f3prune.calibration import PruneConfig, calibrate, denoise_synthetic, select_masks
        >>> from f3prune.testing import TINY_SHAPES, tiny_denoiser
        >>> latte = tiny_denoiser("latte")
        >>> measured = calibrate(latte, lambda: denoise_synthetic(latte, TINY_SHAPES["latte"], steps=2))
        >>> before = sum(parameter.numel() for parameter in latte.parameters())
        >>> masks = select_masks(measured, PruneConfig(alpha=1.0, score="aas"))
        >>> prune_denoiser(latte, masks) is latte
        True
        >>> sum(parameter.numel() for parameter in latte.parameters()) < before
        True
    """
    if masks.refit != ("" if refit is None else refit.digest):
        raise InputError(
            "these masks were refitted: pass `refit`, made with them"
            if refit is None
            else "the refit was made for other masks: pass those that came with it"
        )
    return bake(denoiser, masks, stage, source_digest, refit)


def bake(
    denoiser: nn.Module, masks: Masks, stage: int = 0, source_digest: str = "", refit: Refit | None = None
) -> nn.Module:
    """``prune_denoiser`` without a word about the refit: stored weights have it in them already."""
    if pruning_of(denoiser) is not None:
        raise InputError("this denoiser is already pruned: prune the dense one")
    family = family_of(denoiser)
    if family.name != masks.family:
        raise InputError(f"the masks are for {masks.family}, the denoiser is {family.name} ({type(denoiser).__name__})")
    if not 0 <= stage < len(masks.stages):
        raise InputError(f"stage is {stage}, the masks have {len(masks.stages)}")
    wanted = masks.stages[stage].sites
    layouts = {mask.layout for mask in wanted.values()}
    sites = {site.name: site for site in family.find_sites(denoiser, "all") if site.layout in layouts}
    if sites.keys() != wanted.keys():
        odd = sorted(sites.keys() ^ wanted.keys())
        raise UnknownSiteError(
            f"{len(odd)} sites differ between masks and denoiser, the first is {odd[0]}: run `calibrate(...)` again"
        )
    handlers: dict[str, Handler] = {}
    for name, site in sites.items():
        mask = wanted[name]
        if mask.heads != site.heads:
            raise InputError(f"site {name} has {site.heads} heads, the masks say {mask.heads}: calibrate this model")
        if not mask.untouched:
            if refit is not None:
                for layer_name, layer in refit.layers(denoiser, site, stage):
                    put(denoiser, layer_name, layer)
            elif masks.refit and family.autoregressive and drops_channel(mask):
                put(denoiser, *frame_layer(denoiser, site, None))
            handler = _bake(Place(denoiser, family, site, mask))
            if handler is not None:
                handlers[name] = handler
    if handlers:
        AttentionHook(denoiser, family, handlers, sites).attach()
    setattr(denoiser, _RECORD, PruningRecord(masks, stage, source_digest))
    return denoiser


def _bake(place: Place) -> Handler | None:
    """Rewrite one site; the handler it needs at run time, if any."""
    site, mask = place.site, place.mask
    if mask.kept_pairs is not None and place.computes_own_heads:
        raise InputError(
            f"site {site.name} is pruned by frame pairs, which {place.family.title} cannot use there: "
            f"prune with `granularity='layer'` or `'head'`"
        )
    return mask.stand_in.bake(place)
