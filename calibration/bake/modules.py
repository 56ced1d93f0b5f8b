"""Modules that stand where a pruned attention stood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from f3prune.calibration.bake.surgery import (
    head_channels,
    linear,
    new_linear,
    set_heads,
    take_output_heads,
    take_query_key_heads,
    take_value_heads,
)
from f3prune.core.errors import InputError
from f3prune.families import Site


class ValueOutput(nn.Module):
    """A frame-local temporal attention: every frame attends to itself alone, so the output is ``W_o W_v x``.

    One layer where that is smaller, two where the heads are fewer than half the channels.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """``b f c -> b f c``; the arguments of the attention it replaces."""
        output: torch.Tensor = self.layers(hidden_states)
        return output


class PartlyReplaced(nn.Module):
    """Temporal attention of which some heads still attend (``attention``), the rest being a map of x (``replaced``)."""

    def __init__(self, attention: nn.Module, replaced: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.replaced = replaced

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``b f c -> b f c``; the arguments of the attention it replaces."""
        output: torch.Tensor = self.attention(hidden_states, *args, **kwargs) + self.replaced(hidden_states)
        return output


class StaticAttention(nn.Module):
    """Temporal attention with constant weights: values, mean maps, output projection.

    Args:
        value: projects ``b f c`` to the values of the heads, ``b f (h d)``.
        maps: attention from frame to frame ``h f f``, float32.
        output: projects ``b f (h d)`` to ``b f c``.
        site: name of the site, for messages.
    """

    def __init__(self, value: nn.Linear, maps: torch.Tensor, output: nn.Linear, site: str) -> None:
        super().__init__()
        self.value = value
        self.output = output
        self.site = site
        weight = value.weight
        self.maps = nn.Parameter(maps.to(weight.device, weight.dtype), requires_grad=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """``b f c -> b f c``; the arguments of the attention it replaces.

        Raises:
            InputError: another number of frames than the maps were made for.
        """
        heads, frames, _ = self.maps.shape
        if hidden_states.shape[1] != frames:
            raise InputError(
                f"site {self.site} was made static for {frames} frames, this call has {hidden_states.shape[1]}: "
                f"generate with the calibrated number of frames, or prune with `mode='local'`"
            )
        value = self.value(hidden_states).unflatten(-1, (heads, -1)).transpose(1, 2)
        output: torch.Tensor = self.output((self.maps @ value).transpose(1, 2).flatten(2))
        return output


class DroppedAttention(nn.Module):
    """An attention whose contribution is gone: zeros, or zero channels where the block's own projection was cut."""

    def __init__(self, returns_text: bool, no_channels: bool) -> None:
        super().__init__()
        self.returns_text = returns_text
        self.no_channels = no_channels

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]:
        """``b n c -> b n c``, and the same for text; the arguments of the attention it replaces."""
        video = self._nothing(hidden_states)
        if not self.returns_text:
            return video
        return video, None if encoder_hidden_states is None else self._nothing(encoder_hidden_states)

    def _nothing(self, like: torch.Tensor) -> torch.Tensor:
        return like[..., :0] if self.no_channels else torch.zeros_like(like)


class PaddedLinear(nn.Module):
    """A linear layer whose last output channels were cut and read as zeros."""

    def __init__(self, layer: nn.Linear, missing: int) -> None:
        super().__init__()
        self.layer = layer
        self.missing = missing

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``… in -> … (out + missing)``."""
        return F.pad(self.layer(hidden_states), (0, self.missing))


class LeadingLinear(nn.Module):
    """A linear layer that reads only the first channels of its input."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``… in -> … out``."""
        output: torch.Tensor = self.layer(hidden_states[..., : self.layer.in_features])
        return output


def require_plain(attention: Any, name: str) -> None:
    """Refuse an attention module that does more than project, attend and project.

    Raises:
        InputError: it normalises, adds or scales, which linear maps cannot stand for.
    """
    for attribute, plain in (("group_norm", None), ("spatial_norm", None), ("residual_connection", False)):
        if getattr(attention, attribute, plain) not in (plain,):
            raise InputError(f"site {name} uses {attribute}, which a linear map cannot stand for: protect it")
    if getattr(attention, "rescale_output_factor", 1.0) != 1.0:
        raise InputError(f"site {name} rescales its output, which baking does not support: protect it")


def shrink(denoiser: nn.Module, site: Site, kept: Sequence[int]) -> None:
    """Leave only the kept heads in every projection of the site."""
    take_query_key_heads(denoiser, site, kept)
    take_value_heads(denoiser, site, kept)
    take_output_heads(denoiser, site, kept)
    set_heads(denoiser, site, len(kept))


def value_output(denoiser: nn.Module, site: Site, heads: Sequence[int], bias: bool) -> ValueOutput:
    """Fuse value and output projection of some heads of a temporal site.

    Args:
        denoiser: the dense denoiser.
        site: a temporal site.
        heads: the heads, ascending.
        bias: add the output bias (left to the attending heads, when there are any).
    """
    require_plain(denoiser.get_submodule(site.name), site.name)
    (value_name,), ((output_name, _),) = site.value, site.outputs
    value, output = linear(denoiser, value_name), linear(denoiser, output_name)
    channels = head_channels(heads, site.head_dim).to(value.weight.device)
    w_v, w_o = value.weight.detach()[channels], output.weight.detach()[:, channels]
    b_v = None if value.bias is None else value.bias.detach()[channels]
    b_o = output.bias.detach() if bias and output.bias is not None else None
    if channels.numel() * (w_v.shape[1] + w_o.shape[0]) < w_v.shape[1] * w_o.shape[0]:
        return ValueOutput(nn.Sequential(new_linear(w_v, b_v), new_linear(w_o, b_o)))
    fused = (w_o.double() @ w_v.double()).to(w_o.dtype)
    if b_v is not None:
        through = w_o.double() @ b_v.double()
        b_o = (through if b_o is None else through + b_o.double()).to(w_o.dtype)
    return ValueOutput(nn.Sequential(new_linear(fused, b_o)))
