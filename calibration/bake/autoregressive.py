"""Baking a site of a model that generates token by token: its caches shrink with it."""

from __future__ import annotations

from typing import Any

from torch import nn

from f3prune.calibration.bake.surgery import set_heads, take_output_heads, take_query_key_heads, take_value_heads
from f3prune.calibration.masks import SiteMask
from f3prune.core.errors import InputError
from f3prune.families import Site


def bake_autoregressive(denoiser: nn.Module, site: Site, mask: SiteMask, mode: str) -> None:
    """Rewrite one temporal channel of CogVideo.

    ``local``: pruned heads go last and become frame-local; they keep no keys or values of earlier frames. ``drop``:
    pruned heads leave the projections, and a channel with none left hands its share to the spatial one.

    Raises:
        InputError: the masks prune frame pairs.
    """
    if mask.kept_pairs is not None:
        raise InputError(
            f"site {site.name} is pruned by frame pairs, which a model that generates frame after frame cannot use: "
            f"prune with --granularity layer or head"
        )
    module: Any = denoiser.get_submodule(site.name)
    kept = [head for head in range(site.heads) if head not in mask.pruned_heads]
    if mode == "drop" and not kept:
        layer: Any = denoiser.get_submodule(site.name.rpartition(".")[0])
        layer.drop_temporal()
        return
    order = kept if mode == "drop" else [*kept, *mask.pruned_heads]
    take_query_key_heads(denoiser, site, order)
    take_value_heads(denoiser, site, order)
    take_output_heads(denoiser, site, order)
    if mode == "drop":
        set_heads(denoiser, site, len(kept))
    else:
        module.local_heads = len(mask.pruned_heads)
