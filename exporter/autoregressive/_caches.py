"""The caches of an exported model, and what a step reads: names, heads, symbolic axes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from f3prune.core.tensors import FRAME_SLOTS, VIDEO_SLOTS
from f3prune.models.cogvideo.cache import LayerCache
from f3prune.models.cogvideo.model import CogVideo

BIASES = ("spatial", "temporal", "temporal_shifted", "local", "local_shifted")
"""Fields of ``StepBiases``."""


def used_biases(model: CogVideo, spatial_only: bool = False) -> tuple[str, ...]:
    """Which fields of ``StepBiases`` a step of this model reads."""
    found = {"spatial"}
    windows = model.shape.window_size > 0
    for index, layer in enumerate(model.blocks):
        if layer.temporal is None or spatial_only:
            continue
        suffix = "_shifted" if model.shape.shifted(index) else ""
        if layer.temporal.dense_heads:
            found.add(f"temporal{suffix}")
        if layer.temporal.local_heads and windows:
            found.add(f"local{suffix}")
    return tuple(name for name in BIASES if name in found)


def cache_shapes(model: CogVideo, spatial_only: bool = False) -> dict[str, tuple[int, str]]:
    """Name of every cache of a model, with its heads and the name of its slot axis."""
    found: dict[str, tuple[int, str]] = {}
    for index, layer in enumerate(model.blocks):
        groups = [("spatial", layer.spatial.heads, FRAME_SLOTS)]
        if layer.temporal is not None and not spatial_only:
            groups += [
                ("temporal", layer.temporal.dense_heads, VIDEO_SLOTS),
                ("local", layer.temporal.local_heads, FRAME_SLOTS),
            ]
        for group, heads, axis in groups:
            for kind in ("key", "value") if heads else ():
                found[f"layers.{index}.{group}_{kind}"] = (heads, axis)
    return found


def layer_caches(tensors: Mapping[str, torch.Tensor], model: CogVideo) -> list[LayerCache]:
    """Caches by layer from tensors by name; other tensors are ignored."""
    layers: list[dict[str, torch.Tensor]] = [{} for _ in model.blocks]
    for name, tensor in tensors.items():
        if name.startswith("layers."):
            _, index, field = name.split(".", 2)
            layers[int(index)][field] = tensor
    return [LayerCache(**fields) for fields in layers]
