"""The two graphs as modules of flat tensors, and what they are traced with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from f3prune.core.tensors import BATCH, FRAME_SLOTS, TEXT, VIDEO_SLOTS
from f3prune.exporter._axes import Axes, Symbol
from f3prune.exporter.autoregressive._caches import BIASES, cache_shapes, layer_caches, used_biases
from f3prune.models.cogvideo.cache import LayerCache
from f3prune.models.cogvideo.decoding import text_positions
from f3prune.models.cogvideo.model import CogVideo, StepBiases


class Graph(nn.Module):
    """One of the two graphs: flat tensors in, flat tensors out."""

    def __init__(self, model: CogVideo, spatial_only: bool) -> None:
        super().__init__()
        self.denoiser = model
        self.spatial_only = spatial_only
        self.input_names: tuple[str, ...] = ()
        self.output_names: tuple[str, ...] = ()
        self.axes: Axes = {}
        self.output_axes: dict[str, dict[int, str]] = {}

    def example(self, example: Example) -> tuple[torch.Tensor, ...]:
        """Inputs to trace with."""
        raise NotImplementedError  # each of the two graphs has its own

    def unify(self, tensors: Sequence[torch.Tensor]) -> None:
        """Tell the tracer that sizes of one name are one size."""
        seen: dict[str, Any] = {}
        for name, tensor in zip(self.input_names, tensors, strict=True):
            for axis, symbol in self.axes.get(name, {}).items():
                torch._check(tensor.shape[axis] == seen.setdefault(symbol.name, tensor.shape[axis]))


class Prefill(Graph):
    def __init__(self, model: CogVideo, times: tuple[int, ...], spatial_only: bool) -> None:
        super().__init__(model, spatial_only)
        self.times = times
        self.input_names = ("text", "text_mask", "log_text", *(("frames",) if times else ()))
        caches = cache_shapes(model, spatial_only)
        self.output_names = tuple(caches)
        both = {0: Symbol(BATCH), 1: Symbol(TEXT)}
        self.axes = {"text": both, "text_mask": both, "log_text": {0: Symbol(BATCH)}, "frames": {0: Symbol(BATCH)}}
        video = VIDEO_SLOTS if times else TEXT
        self.output_axes = {
            name: {0: BATCH, 2: video if axis == VIDEO_SLOTS else TEXT} for name, (_, axis) in caches.items()
        }

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Caches of all layers, in the order of ``output_names``."""
        self.unify(tensors)
        text, mask, log_text, *frames = tensors
        positions = text_positions(mask)
        tokens = text
        if frames:
            tokens = torch.cat([text, frames[0]], dim=1)
            slots = [slot for time in self.times for slot in self.denoiser.shape.frame_positions(time)]
            video = torch.tensor(slots)[None].expand(text.shape[0], -1)
            positions = torch.cat([positions, video], dim=1)
        _, caches = self.denoiser.prefill(tokens, positions, mask, self.times, log_text, self.spatial_only)
        # A cache that is a plain view of an input would be refused as an output.
        return tuple(tensor.clone() for cache in caches for tensor in cache.tensors().values())

    def example(self, example: Example) -> tuple[torch.Tensor, ...]:
        """Inputs to trace with."""
        frames = (example.frames,) if self.times else ()
        return (example.text, example.mask, torch.zeros(len(example.text), 1), *frames)


class Decode(Graph):
    def __init__(self, model: CogVideo, spatial_only: bool, image_tokens: int | None) -> None:
        super().__init__(model, spatial_only)
        self.image_tokens = image_tokens
        caches = cache_shapes(model, spatial_only)
        self.biases = used_biases(model, spatial_only)
        slots = ("frame_slot", *(("video_slot",) if VIDEO_SLOTS in {axis for _, axis in caches.values()} else ()))
        self.slots = slots
        self.input_names = ("token", "position_id", *slots, *(f"{name}_bias" for name in self.biases), *caches)
        self.output_names = ("logits", *(f"{name}.out" for name in caches))
        self.axes = {"token": {0: Symbol(BATCH)}}
        for name in self.biases:
            axis = VIDEO_SLOTS if name.startswith("temporal") else FRAME_SLOTS
            self.axes[f"{name}_bias"] = {0: Symbol(BATCH), 3: Symbol(axis)}
        self.output_axes = {"logits": {0: BATCH}}
        for name, (_, axis) in caches.items():
            self.axes[name] = {0: Symbol(BATCH), 2: Symbol(axis)}
            self.output_axes[f"{name}.out"] = {0: BATCH, 2: axis}

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits and caches, in the order of ``output_names``."""
        self.unify(tensors)
        given = dict(zip(self.input_names, tensors, strict=True))
        spatial = given["spatial_bias"]
        biases = StepBiases(
            **{
                name: given.get(f"{name}_bias", given.get(f"{name.removesuffix('_shifted')}_bias", spatial))
                for name in BIASES
            }
        )
        logits, caches = self.denoiser.decode_step(
            given["token"],
            given["position_id"],
            given["frame_slot"],
            given.get("video_slot", given["frame_slot"]),
            biases,
            layer_caches(given, self.denoiser),
            self.spatial_only,
            self.image_tokens,
        )
        return (logits, *(tensor for cache in caches for tensor in cache.tensors().values()))

    def example(self, example: Example) -> tuple[torch.Tensor, ...]:
        """Inputs to trace with."""
        given = {name: getattr(example.biases, name) for name in self.biases}
        caches = [tensor for cache in example.caches for tensor in cache.tensors().values()]
        slots = [getattr(example, name) for name in self.slots]
        return (example.token, example.position_id, *slots, *given.values(), *caches)


@dataclass(frozen=True)
class Example:
    text: torch.Tensor
    mask: torch.Tensor
    frames: torch.Tensor
    token: torch.Tensor
    position_id: torch.Tensor
    frame_slot: torch.Tensor
    video_slot: torch.Tensor
    biases: StepBiases
    caches: list[LayerCache]


def example_of(model: CogVideo, times: tuple[int, ...], spatial_only: bool) -> Example:
    """A batch of two with padding, in the middle of a frame; sizes differ from each other so that symbols do."""
    shape, generator = model.shape, torch.Generator().manual_seed(0)
    batch, text, dtype = 2, 7, model.word_embeddings.weight.dtype

    def draw(*size: int) -> torch.Tensor:
        return torch.randint(shape.vocab_size, size, generator=generator)

    mask = torch.ones(batch, text, dtype=torch.int64)
    mask[0, :2] = 0
    frame_slots, video_slots = text + shape.frame_len, text + (len(times) + 1) * shape.frame_len
    # Where no frame is given both caches are as long: one more slot tells their symbols apart.
    video_slots += 0 if times else 1

    def cache(heads: int, slots: int) -> torch.Tensor:
        return torch.randn(batch, heads, slots, shape.head_dim, generator=generator).to(dtype)

    def bias(slots: int) -> torch.Tensor:
        return torch.zeros(batch, 1, 1, slots, dtype=dtype)

    caches = {
        name: cache(heads, video_slots if axis == VIDEO_SLOTS else frame_slots)
        for name, (heads, axis) in cache_shapes(model, spatial_only).items()
    }
    return Example(
        text=draw(batch, text),
        mask=mask,
        frames=draw(batch, len(times) * shape.frame_len),
        token=draw(batch),
        position_id=torch.tensor([shape.frame_positions(len(times))[1]]),
        frame_slot=torch.tensor([text + 1]),
        video_slot=torch.tensor([text + len(times) * shape.frame_len + 1]),
        biases=StepBiases(
            bias(frame_slots), bias(video_slots), bias(video_slots), bias(frame_slots), bias(frame_slots)
        ),
        caches=layer_caches(caches, model),
    )
