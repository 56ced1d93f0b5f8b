"""Bring a denoiser and its inputs to the dtype of the graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from f3prune.core.weights import weight_dtype
from f3prune.exporter.arguments import TIMESTEP, stands_alone
from f3prune.families.classes import kept_in_fp32

_OWN_DTYPE = {TIMESTEP, "r_timestep", "video_coords", "audio_coords"}
"""Times and places of tokens, which pipelines compute in fp32 whatever the denoiser is in."""


def in_dtype(denoiser: nn.Module, dtype: torch.dtype) -> nn.Module:
    """``denoiser`` itself where its weights are in ``dtype`` already, else a converted copy.

    Does:
        converts as ``from_pretrained(torch_dtype=dtype)`` would: parameters and saved buffers, except those that the
        class keeps in fp32; buffers that are computed and not saved stay as they are.

    Ensures:
        the given denoiser is untouched; the copy shares every tensor that needed no conversion, and the full-precision
        weights are never duplicated.
    """
    keep = kept_in_fp32(denoiser)
    saved = set(denoiser.state_dict(keep_vars=True))
    memo: dict[int, Any] = {}
    changed = False
    for name, parameter in denoiser.named_parameters():
        target = weight_dtype(name, parameter, dtype, keep)
        memo[id(parameter)] = (
            parameter if target == parameter.dtype else nn.Parameter(parameter.detach().to(target), requires_grad=False)
        )
        changed |= target != parameter.dtype
    for name, buffer in denoiser.named_buffers():
        target = weight_dtype(name, buffer, dtype, keep) if name in saved else buffer.dtype
        memo[id(buffer)] = buffer if target == buffer.dtype else buffer.to(target)
        changed |= target != buffer.dtype
    return copy.deepcopy(denoiser, memo) if changed else denoiser


def inputs_in_dtype(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Convert latents and embeddings to ``dtype``, as a pipeline in that dtype would pass them.

    Those are the floating-point tensors with two axes or more that are arguments of their own, or several text
    embeddings in a tuple. ``timestep``, be it one for all or one per token or frame, tokens' places, guidance (fewer
    axes) and tensors inside other tuples (rotary tables, which pipelines compute in fp32) keep their dtype: half
    precision makes 936 of a timestep of 937.5.
    """
    return {name: tensor.to(dtype) if _follows(name, tensor) else tensor for name, tensor in tensors.items()}


def _follows(name: str, tensor: torch.Tensor) -> bool:
    """Whether a pipeline passes this in the denoiser's dtype."""
    return tensor.is_floating_point() and tensor.ndim >= 2 and stands_alone(name) and name not in _OWN_DTYPE
