"""Export a model that generates token by token: a prefill graph and a decode-step graph, caches in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.export import Dim

from f3prune.core.errors import ExportError, InputError
from f3prune.exporter._axes import Axes, Symbol
from f3prune.exporter._config import ExportConfig
from f3prune.exporter._dtype import in_dtype
from f3prune.exporter._export import spec_of
from f3prune.exporter._files import DATA, GRAPH, appearing, save
from f3prune.exporter._passes import clean, to_onnx
from f3prune.exporter._result import ExportResult
from f3prune.exporter._trace import traced
from f3prune.exporter.arguments import Arguments
from f3prune.exporter.graph_facts import graph_facts
from f3prune.exporter.metadata import describe
from f3prune.exporter.self_test import BOUNDS, SelfTest, agreement
from f3prune.models.cogvideo.cache import LayerCache
from f3prune.models.cogvideo.decoding import text_positions
from f3prune.models.cogvideo.model import CogVideo, StepBiases

PREFILL, DECODE = "prefill", "decode"
BATCH, TEXT, FRAME_SLOTS, VIDEO_SLOTS = "batch", "text", "frame_slots", "video_slots"
_BIASES = ("spatial", "temporal", "temporal_shifted", "local", "local_shifted")


@dataclass(frozen=True)
class AutoregressiveExport:
    """The two graphs; ``directory/prefill/denoiser.onnx`` and ``directory/decode/denoiser.onnx``."""

    results: Mapping[str, ExportResult]

    @property
    def prefill(self) -> ExportResult:
        """The graph that starts."""
        return self.results[PREFILL]

    @property
    def decode(self) -> ExportResult:
        """The graph of one token."""
        return self.results[DECODE]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {name: result.to_dict() for name, result in self.results.items()}


def export_autoregressive(
    model: CogVideo,
    directory: Path | str,
    times: Sequence[int] = (),
    config: ExportConfig | None = None,
    metadata: Mapping[str, str] | None = None,
    spatial_only: bool = False,
    image_tokens: int | None = None,
    graphs: Sequence[str] = (PREFILL, DECODE),
) -> AutoregressiveExport:
    """Write ``model``, dense or pruned, as two graphs.

    Requires:
        a CogVideo in evaluation mode, on the CPU.

    Does:
        the prefill graph takes ``text`` (``b t``), ``text_mask`` (``b t``), ``log_text`` (``b 1``) and, for given
        frames, ``frames`` (``b (k F)`` image tokens, begin-of-image in each first slot), and gives every cache. The
        decode graph takes one token, the slots it goes to, what to add to scores, and the caches; it gives the
        logits and the caches, each under its name with ``.out``. A runtime that binds both to one buffer copies no
        cache.

    Ensures:
        a cache has the heads that use it and no more: a dropped temporal channel has none, a frame-local head one of
        text and one frame. Both graphs agree with PyTorch in ONNX Runtime; they appear whole or not at all.

    Args:
        model: what to export.
        directory: made if need be.
        times: time index of the frames that are given, in storage order: ``()`` to generate from text alone, ``(0,)``
            to go on from frame 0, ``(0, 2, 4)`` for stage 2.
        config: options; ``dynamic`` is fixed to batch and text.
        metadata: further properties of the graphs.
        spatial_only: leave the temporal channel out, as CogView2 draws frame 0.
        image_tokens: make logits of the first so many tokens only, see ``CogVideo.decode_step``.
        graphs: which of the two to write.

    Raises:
        InputError: the model is in training mode, or the directory cannot be written.
        ExportError: the model cannot be traced or translated, or a graph differs from PyTorch.
    """
    config = config or ExportConfig()
    if model.training:
        raise InputError("CogVideo is in training mode: call .eval() before exporting it")
    model = in_dtype(model, config.torch_dtype)  # type: ignore[assignment]
    directory = Path(directory)
    made = {
        PREFILL: _Prefill(model, tuple(times), spatial_only),
        DECODE: _Decode(model, spatial_only, image_tokens),
    }
    results = {}
    example = _example(model, tuple(times), spatial_only)
    for name in graphs:
        graph = made[name]
        tensors = graph.example(example)
        results[name] = _export(graph, name, tensors, directory / name, config, model, metadata or {})
    return AutoregressiveExport(results)


class _Graph(nn.Module):
    """One of the two graphs: flat tensors in, flat tensors out."""

    def __init__(self, model: CogVideo, spatial_only: bool) -> None:
        super().__init__()
        self.denoiser = model
        self.spatial_only = spatial_only
        self.input_names: tuple[str, ...] = ()
        self.output_names: tuple[str, ...] = ()
        self.axes: Axes = {}
        self.output_axes: dict[str, dict[int, str]] = {}

    def example(self, example: _Example) -> tuple[torch.Tensor, ...]:
        """Inputs to trace with."""
        raise NotImplementedError  # each of the two graphs has its own

    def unify(self, tensors: Sequence[torch.Tensor]) -> None:
        """Tell the tracer that sizes of one name are one size."""
        seen: dict[str, Any] = {}
        for name, tensor in zip(self.input_names, tensors, strict=True):
            for axis, symbol in self.axes.get(name, {}).items():
                torch._check(tensor.shape[axis] == seen.setdefault(symbol.name, tensor.shape[axis]))


class _Prefill(_Graph):
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

    def example(self, example: _Example) -> tuple[torch.Tensor, ...]:
        """Inputs to trace with."""
        frames = (example.frames,) if self.times else ()
        return (example.text, example.mask, torch.zeros(len(example.text), 1), *frames)


class _Decode(_Graph):
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
                for name in _BIASES
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

    def example(self, example: _Example) -> tuple[torch.Tensor, ...]:
        """Inputs to trace with."""
        given = {name: getattr(example.biases, name) for name in self.biases}
        caches = [tensor for cache in example.caches for tensor in cache.tensors().values()]
        slots = [getattr(example, name) for name in self.slots]
        return (example.token, example.position_id, *slots, *given.values(), *caches)


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
    return tuple(name for name in _BIASES if name in found)


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


@dataclass(frozen=True)
class _Example:
    text: torch.Tensor
    mask: torch.Tensor
    frames: torch.Tensor
    token: torch.Tensor
    position_id: torch.Tensor
    frame_slot: torch.Tensor
    video_slot: torch.Tensor
    biases: StepBiases
    caches: list[LayerCache]


def _example(model: CogVideo, times: tuple[int, ...], spatial_only: bool) -> _Example:
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
    return _Example(
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


def _export(
    graph: _Graph,
    kind: str,
    tensors: tuple[torch.Tensor, ...],
    directory: Path,
    config: ExportConfig,
    model: CogVideo,
    metadata: Mapping[str, str],
) -> ExportResult:
    symbols = {symbol.name for axes in graph.axes.values() for symbol in axes.values()}
    dims = {name: Dim(name, min=1) for name in sorted(symbols)}
    shapes = tuple(
        {axis: dims[symbol.name] for axis, symbol in graph.axes.get(name, {}).items()} or None
        for name in graph.input_names
    )
    program = traced(graph.eval(), tensors, shapes, f"CogVideo ({kind})", tuple(dims))
    axes = {name: graph.axes.get(name, {}) for name in graph.input_names}
    onnx_model, rewrites = clean(to_onnx(program, graph.input_names, axes, config.opset, graph.output_names))
    del program
    for value in onnx_model.graph.outputs:
        sizes: list[Any] = list(value.shape)
        for axis, name in graph.output_axes.get(value.name, {}).items():
            sizes[axis] = name
        value.shape = ir.Shape(sizes)
    properties = describe(model, Arguments({}, {}, {}), config, {"graph": kind, **metadata})
    onnx_model.metadata_props.clear()
    onnx_model.metadata_props.update(properties)
    with appearing(directory) as scratch:
        path = save(onnx_model, scratch)
        tested = _test(path, graph, tensors, config) if config.self_test else None
        has_data = (scratch / DATA).exists()
    return ExportResult(
        path=directory / GRAPH,
        data_path=directory / DATA if has_data else None,
        inputs=tuple(spec_of(value) for value in onnx_model.graph.inputs),
        outputs=tuple(spec_of(value) for value in onnx_model.graph.outputs),
        constants={},
        metadata=properties,
        opset=onnx_model.opset_imports[""],
        facts=graph_facts(onnx_model),
        self_test=tested,
        rewrites=rewrites,
    )


def _test(path: Path, graph: _Graph, tensors: tuple[torch.Tensor, ...], config: ExportConfig) -> SelfTest:
    """ONNX Runtime against PyTorch, every output, on the whole batch and on its first row.

    Raises:
        ExportError: an output differs more than rounding explains.
    """
    from f3prune.exporter.ort_cpu import OrtGraph

    session = OrtGraph(path)
    calls = []
    for rows in (2, 1):
        given = {
            name: tensor[:rows] if 0 in graph.axes.get(name, {}) else tensor
            for name, tensor in zip(graph.input_names, tensors, strict=True)
        }
        with torch.inference_mode():
            # The traced function writes copies; the eager one writes into the caches it is given.
            expected = graph(*(tensor.clone() for tensor in given.values()))
        found = session.run_all(given)
        for name, reference in zip(graph.output_names, expected, strict=True):
            calls.append(agreement(found[name].float(), reference.float()))
            if not calls[-1].rel_l2 <= BOUNDS[config.dtype]:
                raise ExportError(
                    f"self-test of {path.parent.name}/{path.name} failed at output {name}: relative L2 "
                    f"{calls[-1].rel_l2:.3g}, expected at most {BOUNDS[config.dtype]:g} for {config.dtype}; "
                    f"report this model"
                )
    return SelfTest(session.ran_as, BOUNDS[config.dtype], tuple(calls))
