"""Which axes of the inputs are symbolic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from f3prune.core.errors import ExportError
from f3prune.core.tensors import BATCH
from f3prune.exporter.arguments import TEXT, stands_alone

TEXT_INPUTS = (
    TEXT,
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

Axes = dict[str, dict[int, Symbol]]


def symbolic_axes(
    tensors: Mapping[str, torch.Tensor],
    latents: str,
    frames: int | None,
    dynamic: Sequence[str],
    not_batched: Sequence[str] = (),
) -> Axes:
    """Find the batch and text axes of the inputs.

    Does:
        an argument of its own (not inside a tuple, unless of text) whose first axis is as long as the latents' has the
        batch there; one whose first axis is ``frames`` times as long has ``frames*batch`` (AnimateDiff's text). The
        text axis is axis 1 of the text embeddings and of their mask. Inputs of ``not_batched`` have no batch, however
        long they are.

    Raises:
        ExportError: ``text`` is wanted, and the denoiser takes no text tokens.
    """
    axes: Axes = {}
    batch = tensors[latents].shape[0]
    for name, tensor in tensors.items():
        found: dict[int, Symbol] = {}
        if "batch" in dynamic and stands_alone(name) and name not in not_batched and tensor.ndim > 0:
            if tensor.shape[0] == batch:
                found[0] = Symbol(BATCH)
            elif frames is not None and tensor.shape[0] == batch * frames:
                found[0] = Symbol(BATCH, frames)
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


def at_least_two(tensors: Mapping[str, torch.Tensor], axes: Axes) -> dict[str, torch.Tensor]:
    """Repeat a batch of one, because a size of one would be taken for a constant while tracing."""
    repeated = dict(tensors)
    for name, symbols in axes.items():
        symbol = symbols.get(0)
        if symbol is not None and symbol.name == BATCH and tensors[name].shape[0] == symbol.factor:
            repeated[name] = torch.cat([tensors[name]] * 2)
    return repeated


def first_of_batch(tensors: Mapping[str, torch.Tensor], axes: Axes) -> dict[str, torch.Tensor]:
    """The first sample of every batched input."""
    first = dict(tensors)
    for name, symbols in axes.items():
        symbol = symbols.get(0)
        if symbol is not None and symbol.name == BATCH:
            first[name] = tensors[name][: symbol.factor]
    return first
