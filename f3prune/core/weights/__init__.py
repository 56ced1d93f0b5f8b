"""Weights: read at the moment they are needed, drawn at random, written one at a time."""

from __future__ import annotations

from f3prune.core.weights.checked_load import load_checked
from f3prune.core.weights.lazy_weights import (
    LazyTensor,
    is_lazy,
    lazily_in_dtype,
    lazy_weights,
    read_lazily,
    weight_dtype,
    with_weights,
)
from f3prune.core.weights.random_weights import lazily_randomized, randomize_weights
from f3prune.core.weights.safetensors_header import read_header, read_tensor
from f3prune.core.weights.safetensors_stream import save_streaming

__all__ = [
    "LazyTensor",
    "is_lazy",
    "lazily_in_dtype",
    "lazily_randomized",
    "lazy_weights",
    "load_checked",
    "randomize_weights",
    "read_header",
    "read_lazily",
    "read_tensor",
    "save_streaming",
    "weight_dtype",
    "with_weights",
]
