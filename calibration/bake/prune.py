"""Bake masks into a denoiser: less work, not masked work."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from f3prune.calibration.attention_hook import AttentionHook, Handler
from f3prune.calibration.bake.attention import KeptPairs, LeadingHeads, LocalHeads
from f3prune.calibration.bake.autoregressive import bake_autoregressive
from f3prune.calibration.bake.modules import DroppedAttention, LeadingLinear, PaddedLinear, PartlyLocal, value_output
from f3prune.calibration.bake.sparse_causal import bake_sparse_causal
from f3prune.calibration.bake.surgery import (
    head_channels,
    linear,
    set_heads,
    take_output_heads,
    take_query_key_heads,
    take_value_heads,
)
from f3prune.calibration.masks import Masks, SiteMask
from f3prune.core.errors import InputError, UnknownSiteError
from f3prune.families import Family, Site, family_of

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


def prune_denoiser(denoiser: nn.Module, masks: Masks, stage: int = 0, source_digest: str = "") -> nn.Module:
    """Bake one stage of ``masks`` into ``denoiser``, in place.

    The class, configuration and forward signature stay, so it drops into its pipeline. With nothing pruned, nothing
    changes.

    Args:
        denoiser: the dense denoiser the masks were made for.
        masks: what to prune.
        stage: index into ``masks.stages``.
        source_digest: digest of the dense weights, kept in the record.

    Returns:
        The same object.

    Raises:
        InputError: already pruned, of another family, or with adapters or quantised layers at a pruned site.
        UnknownSiteError: masks and denoiser have different sites.
    """
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
            f"{len(odd)} sites differ between masks and denoiser, the first is {odd[0]}: calibrate it again"
        )
    handlers: dict[str, Handler] = {}
    for name, site in sites.items():
        mask = wanted[name]
        if mask.heads != site.heads:
            raise InputError(f"site {name} has {site.heads} heads, the masks say {mask.heads}: calibrate this model")
        if not mask.untouched:
            handler = _bake_site(denoiser, family, site, mask, masks.mode)
            if handler is not None:
                handlers[name] = handler
    if handlers:
        AttentionHook(denoiser, family, handlers, sites).attach()
    setattr(denoiser, _RECORD, PruningRecord(masks, stage, source_digest))
    return denoiser


def _bake_site(denoiser: nn.Module, family: Family, site: Site, mask: SiteMask, mode: str) -> Handler | None:
    """Rewrite one site; the handler it needs at run time, if any."""
    if site.layout == "sparse-causal":
        bake_sparse_causal(denoiser, site, mask, mode)
        return None
    if family.autoregressive:
        bake_autoregressive(denoiser, site, mask, mode)
        return None
    pruned = mask.pruned_heads
    kept = [h for h in range(site.heads) if h not in pruned]
    if mask.kept_pairs is not None:
        if site.layout == "temporal" and all(keys == (i,) for i, keys in enumerate(mask.kept_pairs)):
            _bake_temporal(denoiser, site, [])
            return None
        return KeptPairs(mask.kept_pairs)
    if mode == "drop":
        return _bake_dropped(denoiser, family, site, kept)
    if site.layout == "temporal":
        _bake_temporal(denoiser, site, kept)
        return None
    if not kept:
        return LocalHeads(0)
    order = (*kept, *pruned)
    _reorder(denoiser, family, site, order)
    return LocalHeads(len(kept), None if family.qk_heads_interchangeable else order)


def _bake_temporal(denoiser: nn.Module, site: Site, kept: list[int]) -> None:
    """Frame-local heads of a temporal site become linear maps."""
    local = head_channels([h for h in range(site.heads) if h not in kept], site.head_dim)
    replacement = value_output(denoiser, site, local, bias=not kept)
    if kept:
        _shrink(denoiser, site, kept)
        denoiser.set_submodule(site.name, PartlyLocal(denoiser.get_submodule(site.name), replacement))
    else:
        denoiser.set_submodule(site.name, replacement)


def _bake_dropped(denoiser: nn.Module, family: Family, site: Site, kept: list[int]) -> Handler | None:
    if not kept:
        inside = [name.startswith(f"{site.name}.") for name, _ in site.outputs]
        if not all(inside):
            take_output_heads(denoiser, site, [])
        denoiser.set_submodule(site.name, DroppedAttention(family.returns_text, no_channels=not all(inside)))
        return None
    if family.qk_heads_interchangeable and not family.norm_across_heads:
        _shrink(denoiser, site, kept)
        return None
    order = (*kept, *(h for h in range(site.heads) if h not in kept))
    _reorder(denoiser, family, site, order)
    leading = head_channels(range(len(kept)), site.head_dim)
    take_value_heads(denoiser, site, range(len(kept)))
    for name in site.value:
        missing = (site.heads - len(kept)) * site.head_dim
        denoiser.set_submodule(name, PaddedLinear(linear(denoiser, name), missing))
    take_output_heads(denoiser, site, range(len(kept)))
    for name, start in site.outputs:
        if start:
            raise InputError(f"site {site.name}: {name} reads heads from column {start} on, expected 0")
        layer = linear(denoiser, name)
        if layer.in_features != leading.numel():
            raise InputError(f"site {site.name}: {name} reads more than the heads, which dropping does not support")
        denoiser.set_submodule(name, LeadingLinear(layer))
    return LeadingHeads(len(kept), None if family.qk_heads_interchangeable else order)


def _reorder(denoiser: nn.Module, family: Family, site: Site, order: tuple[int, ...]) -> None:
    """Reorder heads in the weights; q and k stay where the family's rotary embedding tells heads apart."""
    if family.qk_heads_interchangeable:
        take_query_key_heads(denoiser, site, order)
    take_value_heads(denoiser, site, order)
    take_output_heads(denoiser, site, order)


def _shrink(denoiser: nn.Module, site: Site, kept: list[int]) -> None:
    """Leave only the kept heads in every projection of the site."""
    take_query_key_heads(denoiser, site, kept)
    take_value_heads(denoiser, site, kept)
    take_output_heads(denoiser, site, kept)
    set_heads(denoiser, site, len(kept))
