"""Baking sparse-causal attention: pruned heads read their own frame instead of frames 0 and i-1."""

from __future__ import annotations

from typing import Any

from torch import nn

from f3prune.calibration.bake.modules import DroppedAttention
from f3prune.calibration.bake.surgery import set_heads, take_output_heads, take_query_key_heads, take_value_heads
from f3prune.calibration.masks import SiteMask
from f3prune.core.errors import InputError
from f3prune.families import Site


def bake_sparse_causal(denoiser: nn.Module, site: Site, mask: SiteMask, mode: str) -> None:
    """Rewrite one site.

    ``local``: pruned heads go last and attend within their frame, over half the keys and with nothing gathered.
    ``drop``: pruned heads leave the projections; a site with none left gives zeros.

    Raises:
        InputError: the masks prune frame pairs.
    """
    if mask.kept_pairs is not None:
        raise InputError(
            f"site {site.name} is pruned by frame pairs, which sparse-causal attention has not: "
            f"prune with --granularity layer or head"
        )
    kept = [head for head in range(site.heads) if head not in mask.pruned_heads]
    if mode == "drop" and not kept:
        denoiser.set_submodule(site.name, DroppedAttention(returns_text=False, no_channels=False))
        return
    order = kept if mode == "drop" else [*kept, *mask.pruned_heads]
    take_query_key_heads(denoiser, site, order)
    take_value_heads(denoiser, site, order)
    take_output_heads(denoiser, site, order)
    if mode == "drop":
        set_heads(denoiser, site, len(kept))
    else:
        module: Any = denoiser.get_submodule(site.name)
        module.local_heads = len(mask.pruned_heads)
