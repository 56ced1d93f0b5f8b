"""Which axes of the inputs are symbolic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from f3prune.core.errors import ExportError

TEXT_INPUTS = (
    "encoder_hidden_states",
    "encoder_attention_mask",
    "audio_encoder_hidden_states",
    "audio_encoder_attention_mask",
)
"""The text embeddings and their mask; those for an audio stream are of the same prompt."""


@dataclass(frozen=True)
class Symbol:
    """A symbolic size: ``factor`` times ``name``."""

    name: str
    factor: int = 1


TEXT_POSITIONS = ("text_rope_pos",)
"""Positions of the text tokens ``l``, which all samples share."""
_FRAME_POSITIONS = "indices_"
"""How names of frames' positions begin, which all samples share, too."""

Axes = dict[str, dict[int, Symbol]]


def symbolic_axes(
    tensors: Mapping[str, torch.Tensor], latents: str, frames: int | None, dynamic: Sequence[str]
) -> Axes:
    """Find the batch and text axes of the inputs.

    Does:
        an argument of its own (not inside a tuple) whose first axis is as long as the latents' has the batch there; one
        whose first axis is ``frames`` times as long has ``frames*batch`` (AnimateDiff's text). The text axis is axis
        1 of the text embeddings and of their mask.

    Raises:
        ExportError: ``text`` is wanted, and the denoiser takes no text tokens.
    """
    axes: Axes = {}
    batch = tensors[latents].shape[0]
    for name, tensor in tensors.items():
        found: dict[int, Symbol] = {}
        if "batch" in dynamic and "." not in name and tensor.ndim > 0 and not _shared(name):
            if tensor.shape[0] == batch:
                found[0] = Symbol("batch")
            elif frames is not None and tensor.shape[0] == batch * frames:
                found[0] = Symbol("batch", frames)
        axes[name] = found
    if "text" in dynamic:
        states = tensors.get(TEXT_INPUTS[0])
        if states is None or states.ndim != 3:
            raise ExportError(f"dynamic text: the denoiser takes no {TEXT_INPUTS[0]} b l d; use `dynamic=('batch',)`")
        for name in TEXT_INPUTS:
            if name in tensors and tensors[name].ndim >= 2 and tensors[name].shape[1] == states.shape[1]:
                axes[name][1] = Symbol("text")
        for name in TEXT_POSITIONS:
            if name in tensors:
                axes[name][0] = Symbol("text")
    return axes


def _shared(name: str) -> bool:
    return name in TEXT_POSITIONS or name.startswith(_FRAME_POSITIONS)


def at_least_two(tensors: Mapping[str, torch.Tensor], axes: Axes) -> dict[str, torch.Tensor]:
    """Repeat a batch of one, because a size of one would be taken for a constant while tracing."""
    repeated = dict(tensors)
    for name, symbols in axes.items():
        symbol = symbols.get(0)
        if symbol is not None and tensors[name].shape[0] == symbol.factor:
            repeated[name] = torch.cat([tensors[name]] * 2)
    return repeated


def first_of_batch(tensors: Mapping[str, torch.Tensor], axes: Axes) -> dict[str, torch.Tensor]:
    """The first sample of every batched input."""
    return {
        name: tensor[: axes[name][0].factor] if 0 in axes.get(name, {}) else tensor for name, tensor in tensors.items()
    }
