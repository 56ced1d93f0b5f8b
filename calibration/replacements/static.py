"""``static``: a temporal head keeps its mean attention map, and loses its queries, keys and softmax."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from f3prune.calibration.attention_hook import AttentionCall, Handler
from f3prune.calibration.bake.modules import PartlyReplaced, StaticAttention, require_plain, shrink
from f3prune.calibration.bake.surgery import head_channels, linear, take_columns, take_rows
from f3prune.calibration.replacements._registry import Place, Replacement, register
from f3prune.core.errors import InputError
from f3prune.families import Family, Layout, TokenGrid

RIDGE = 1e-3
"""How strongly a refit pulls maps towards the mean ones, relative to the diagonal of ``Σ v vᵀ``."""


@dataclass(frozen=True)
class FrameMaps:
    """Attention of every head from frame to frame, as bytes so that masks stay comparable.

    Attributes:
        heads: h.
        frames: f.
        data: ``h f f`` float32, little-endian, in base64.
    """

    heads: int
    frames: int
    data: str

    @classmethod
    def of(cls, maps: torch.Tensor) -> FrameMaps:
        """From ``h f f``, floating point."""
        array = maps.detach().cpu().float().numpy().astype("<f4")
        return cls(int(maps.shape[0]), int(maps.shape[1]), base64.b64encode(array.tobytes()).decode())

    def tensor(self) -> torch.Tensor:
        """``h f f`` float32."""
        flat = np.frombuffer(base64.b64decode(self.data), dtype="<f4").astype(np.float32)
        return torch.from_numpy(flat).reshape(self.heads, self.frames, self.frames)


@register("static")
@dataclass(frozen=True)
class Static(Replacement):
    """``y_i = b + Σ_h W_o,h Σ_j P_h[i,j] (W_v,h x_j + b_v,h)`` with P, the mean of the calibrated attention maps.

    Attributes:
        maps: P of the replaced heads; ``None`` until a site's calibration is known.
    """

    title: ClassVar[str] = "all frames, with constant weights"
    offered: ClassVar[tuple[str, ...]] = ("static",)
    compared: ClassVar[tuple[str, ...]] = ("static",)
    layouts: ClassVar[tuple[Layout, ...]] = ("temporal",)
    fits: ClassVar[bool] = True
    maps: FrameMaps | None = field(default=None, metadata={"fitted": True})

    def for_site(self, mass: torch.Tensor, heads: tuple[int, ...]) -> Static:
        """Mean maps of the pruned heads; columns of text are left out, temporal attention has none."""
        return dataclasses.replace(self, maps=FrameMaps.of(mass[list(heads), :, :-1]))

    def attend(self, call: AttentionCall) -> torch.Tensor:
        """See ``Replacement``."""
        maps = self._maps(call.site.name).to(call.value)
        self._require(call.site.name, call.frames)
        return maps @ call.value

    def reference(self, call: AttentionCall) -> torch.Tensor:
        """See ``Replacement``."""
        self._require(call.site.name, call.frames)
        return torch.einsum("hij,bhjd->bhid", self._maps(call.site.name).to(call.value), call.value)

    def bake(self, place: Place) -> Handler | None:
        """See ``Replacement``."""
        denoiser, site, kept = place.denoiser, place.site, place.kept
        require_plain(place.module, site.name)
        (value_name,), ((output_name, _),) = site.value, site.outputs
        channels = head_channels(place.mask.pruned_heads, site.head_dim)
        static = StaticAttention(
            take_rows(linear(denoiser, value_name), channels),
            self._maps(site.name),
            take_columns(linear(denoiser, output_name), channels, bias=not kept),
            site.name,
        )
        if kept:
            shrink(denoiser, site, kept)
            denoiser.set_submodule(site.name, PartlyReplaced(place.module, static))
        else:
            denoiser.set_submodule(site.name, static)
        return None

    def statistics(self, call: AttentionCall) -> tuple[torch.Tensor, ...]:
        """``Σ v vᵀ`` and ``Σ o vᵀ`` over batch and channels, each ``h f f``."""
        value, output = (t.permute(1, 2, 0, 3).flatten(2).float() for t in (call.value, call.dense()))
        return (value @ value.mT).double(), (output @ value.mT).double()

    def fitted(self, sums: tuple[torch.Tensor, ...]) -> Static:
        """Maps by least squares, pulled towards the mean ones: a mean of maps is not the best map of values."""
        gram, target = sums
        start = self._maps("").to(gram)
        pull = torch.diag_embed(RIDGE * gram.diagonal(dim1=-2, dim2=-1))
        maps = start + torch.linalg.solve(gram + pull, (target - start @ gram).mT).mT
        return dataclasses.replace(self, maps=FrameMaps.of(maps))

    def refusal(self, layout: Layout, family: Family, frames: int, grid: TokenGrid | None) -> str | None:
        """See ``Replacement``."""
        if layout == "spatiotemporal" and not family.autoregressive:
            return "mode static is for temporal attention, not spatiotemporal: use mode window or pooled"
        return super().refusal(layout, family, frames, grid)

    def _maps(self, site: str) -> torch.Tensor:
        if self.maps is None:
            raise InputError(f"mode static has no attention maps for site {site}: select masks from a calibration")
        return self.maps.tensor()

    def _require(self, site: str, frames: int) -> None:
        if self.maps is not None and frames != self.maps.frames:
            raise InputError(
                f"site {site} was made static for {self.maps.frames} frames, this call has {frames}: "
                f"generate with the calibrated number of frames, or prune with `mode='local'`"
            )
