"""CogVideo: where a layer's temporal channel is dropped, the spatial one is refitted to what both gave.

A layer mixes two channels. Without the temporal one, frames read the spatial channel alone, through an output
projection of their own: ``W + Dᵀ``, where ``D`` maps the outputs of the spatial heads to what the mixture had beside
them. Text, which never had a temporal channel, keeps its projection, and so does a first frame that is drawn without
one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from f3prune.calibration.bake.surgery import linear, new_linear
from f3prune.calibration.masks import Masks, SiteMask
from f3prune.calibration.refitting._equations import NothingToRefit, products, solved
from f3prune.calibration.replacements.drop import Drop
from f3prune.core.errors import InputError
from f3prune.core.weights.lazy_weights import LazyTensor
from f3prune.families import Site, family_of

__all__ = ["beside", "drops_channel", "fit_dropped", "frame_layer"]

RIDGE = 1e-2
"""Strength of the pull towards the model's own weights, relative to the diagonal of ``ΦᵀΦ``."""


def fit_dropped(denoiser: nn.Module, masks: Masks, denoise: Callable[[], None]) -> dict[str, torch.Tensor]:
    """``stage/site`` → ``D`` and a constant below it, ``(c + 1) c`` float32, of every temporal channel that is dropped.

    Args:
        denoiser: a dense CogVideo.
        masks: what is to be pruned.
        denoise: passes over finished sequences, by the model's own ``forward``; what else runs is not looked at.

    Raises:
        NothingToRefit: no layer's temporal channel is dropped whole.
        InputError: too few tokens, or no pass at all.
    """
    (stage,) = masks.stages
    dropped = [name for name, mask in stage.sites.items() if drops_channel(mask)]
    if not dropped:
        raise NothingToRefit(
            f"{family_of(denoiser).title} is refitted where the temporal attention of whole layers is dropped: "
            f"prune with `mode='drop'` and `granularity='layer'`"
        )
    sums: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    with ExitStack() as stack, torch.no_grad():
        under_way = _Pass()
        handles = under_way.watch(denoiser)
        for name in dropped:
            handles += _watch(denoiser, name, under_way, sums)
        for handle in handles:
            stack.callback(handle.remove)
        denoise()
    if not sums:
        raise InputError("refit saw no pass over a sequence: run the model on whole ones")
    tensors = {}
    for name in dropped:
        fitted = solved(*sums[name], RIDGE, name)
        if fitted is None:
            raise NothingToRefit(f"the spatial channel beside {name} gives zeros, and cannot be refitted")
        tensors[f"0/{name}"] = fitted
    return tensors


def drops_channel(mask: SiteMask) -> bool:
    """The temporal channel of the site's layer is dropped whole."""
    return len(mask.pruned_heads) == mask.heads and isinstance(mask.stand_in, Drop)


def frame_layer(denoiser: nn.Module, site: Site, fitted: torch.Tensor | None) -> tuple[str, nn.Linear]:
    """The name and the layer of the frames' own output projection; without ``fitted``, as the spatial channel's.

    Lazy weights stay lazy.

    Raises:
        InputError: ``fitted`` is of another model.
    """
    name = f"{site.name.rpartition('.')[0]}.spatial"
    layer = linear(denoiser, f"{name}.to_out")
    weight, bias = layer.weight.detach(), layer.bias.detach()
    if fitted is not None:
        if fitted.shape != (weight.shape[1] + 1, weight.shape[0]):
            raise InputError(f"the refit of site {site.name} has shape {tuple(fitted.shape)}: it is of another model")
        difference, constant = beside(weight, fitted[:-1].t()), beside(weight, fitted[-1])
        weight = (weight.float() + difference).to(weight.dtype)
        bias = (bias.float() + constant).to(bias.dtype)
    return f"{name}.frame_out", new_linear(weight, bias)


def beside(weight: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where the weight is; lazy beside a lazy one, so that their sum or product is put off."""
    if isinstance(weight, LazyTensor):
        return LazyTensor.of(tuple(tensor.shape), tensor.dtype, tensor.clone)
    return tensor.to(weight.device)


class _Pass:
    """The pass over a whole sequence that is under way.

    Attributes:
        text: its slots of text, or ``None`` where none is under way: the model decodes, or rests.
    """

    text: int | None = None

    def watch(self, denoiser: nn.Module) -> list[RemovableHandle]:
        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            mask = kwargs["text_mask"] if "text_mask" in kwargs else args[2]
            self.text = mask.shape[1]

        def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.text = None

        return [
            denoiser.register_forward_pre_hook(begin, with_kwargs=True),
            denoiser.register_forward_hook(end, always_call=True),
        ]


def _watch(
    denoiser: nn.Module, name: str, under_way: _Pass, sums: dict[str, tuple[torch.Tensor, torch.Tensor]]
) -> list[RemovableHandle]:
    """Sum up, over frames, what the spatial heads of a layer give and what the mixture has beside it."""
    layer = denoiser.get_submodule(name.rpartition(".")[0])
    heads = alone = torch.empty(0)

    def spatial(module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal heads, alone
        heads, alone = args[0], output

    def mixed(module: nn.Module, args: tuple[torch.Tensor]) -> None:
        if under_way.text is None:
            return
        lost = args[0] - alone
        found = products(*(tensor[:, under_way.text :].flatten(0, 1).float() for tensor in (heads, lost)))
        before = sums.get(name)
        sums[name] = found if before is None else (before[0] + found[0], before[1] + found[1])

    to_out = layer.get_submodule("spatial.to_out")
    return [
        to_out.register_forward_hook(spatial),
        layer.get_submodule("attention_norm_out").register_forward_pre_hook(mixed),
    ]
