"""Cut and reorder heads in the weights of an attention module. Works on meta tensors too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from f3prune.core.errors import InputError
from f3prune.families import Site


def linear(denoiser: nn.Module, name: str) -> nn.Linear:
    """The plain linear layer called ``name``.

    Raises:
        InputError: it is something else (quantised, or wrapped by an adapter), which baking would silently break.
    """
    module = denoiser.get_submodule(name)
    if type(module) is not nn.Linear:
        raise InputError(
            f"{name} is {type(module).__name__}, expected a plain Linear: fuse adapters and prune before quantising"
        )
    return module


def new_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear layer that owns ``weight`` ``out in`` and ``bias`` ``out``."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer


def put(denoiser: nn.Module, name: str, module: nn.Module | None) -> nn.Module | None:
    """Set the submodule called ``name``, which may be none so far, and give what was there."""
    owner, _, leaf = name.rpartition(".")
    parent = denoiser.get_submodule(owner)
    before: nn.Module | None = getattr(parent, leaf)
    setattr(parent, leaf, module)
    return before


def head_channels(heads: Sequence[int], head_dim: int) -> torch.Tensor:
    """Channels of some heads, in the order given: ``(heads · head_dim)`` int64."""
    return (torch.tensor(list(heads), dtype=torch.int64)[:, None] * head_dim + torch.arange(head_dim)).flatten()


def take_rows(layer: nn.Linear, index: torch.Tensor) -> nn.Linear:
    """The layer with only the output channels ``index``."""
    index = index.to(layer.weight.device)
    return new_linear(layer.weight[index], None if layer.bias is None else layer.bias[index])


def take_columns(layer: nn.Linear, index: torch.Tensor, bias: bool = True) -> nn.Linear:
    """The layer with only the input channels ``index``, and its bias when ``bias``."""
    return new_linear(layer.weight[:, index.to(layer.weight.device)], layer.bias if bias else None)


def take_query_key_heads(denoiser: nn.Module, site: Site, heads: Sequence[int]) -> None:
    """Keep some heads of q and k, in the order given, in every stream of the site and in norms that span heads."""
    index = head_channels(heads, site.head_dim)
    for name in site.query_key:
        denoiser.set_submodule(name, take_rows(linear(denoiser, name), index))
    for name in site.head_norms:
        norm = denoiser.get_submodule(name)
        weight = norm.get_parameter("weight")
        norm.weight = nn.Parameter(weight.detach()[index.to(weight.device)], requires_grad=False)


def take_value_heads(denoiser: nn.Module, site: Site, heads: Sequence[int]) -> None:
    """Keep some heads of v, in the order given, in every stream of the site."""
    index = head_channels(heads, site.head_dim)
    for name in site.value:
        denoiser.set_submodule(name, take_rows(linear(denoiser, name), index))


def take_gates(denoiser: nn.Module, site: Site, heads: Sequence[int]) -> None:
    """Keep the gates of some heads, in the order given."""
    for name in site.gates:
        denoiser.set_submodule(name, take_rows(linear(denoiser, name), torch.tensor(list(heads), dtype=torch.int64)))


def take_output_heads(denoiser: nn.Module, site: Site, heads: Sequence[int]) -> None:
    """Keep the columns of some heads, in the order given, in every output projection; other columns stay."""
    for name, start in site.outputs:
        layer = linear(denoiser, name)
        stop = start + site.heads * site.head_dim
        columns = torch.cat(
            [
                torch.arange(start),
                head_channels(heads, site.head_dim) + start,
                torch.arange(stop, layer.in_features),
            ]
        )
        denoiser.set_submodule(name, take_columns(layer, columns))


def set_heads(denoiser: nn.Module, site: Site, heads: int) -> None:
    """Tell the attention module that it has ``heads`` heads now."""
    module: Any = denoiser.get_submodule(site.name)
    setattr(module, site.heads_attribute, heads)
    for attribute in ("inner_dim", "inner_kv_dim"):
        if isinstance(getattr(module, attribute, None), int):
            setattr(module, attribute, heads * site.head_dim)
