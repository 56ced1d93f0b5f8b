"""Export a model that generates token by token: a prefill graph and a decode-step graph, caches in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch.export import Dim

from f3prune.core.errors import ExportError, InputError
from f3prune.core.parity import ROUNDING, ParityNumbers, parity
from f3prune.core.tensors import DECODE, PREFILL
from f3prune.exporter._config import DEFAULT_OPSET, ExportConfig
from f3prune.exporter._dtype import in_dtype
from f3prune.exporter._files import appearing, save
from f3prune.exporter._passes import clean, to_onnx
from f3prune.exporter._result import ExportResult
from f3prune.exporter._trace import traced
from f3prune.exporter.arguments import Arguments
from f3prune.exporter.autoregressive._graphs import Decode, Graph, Prefill, example_of
from f3prune.exporter.metadata import describe, label
from f3prune.exporter.self_test import OrtGraph, SelfTest
from f3prune.models.cogvideo.model import CogVideo


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

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {name: result.to_json() for name, result in self.results.items()}


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
        PREFILL: Prefill(model, tuple(times), spatial_only),
        DECODE: Decode(model, spatial_only, image_tokens),
    }
    results = {}
    example = example_of(model, tuple(times), spatial_only)
    for name in graphs:
        graph = made[name]
        tensors = graph.example(example)
        results[name] = _export(graph, name, tensors, directory / name, config, model, metadata or {})
    return AutoregressiveExport(results)


def _export(
    graph: Graph,
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
    onnx_model, rewrites = clean(
        to_onnx(program, graph.input_names, axes, config.opset or DEFAULT_OPSET, graph.output_names)
    )
    del program
    for value in onnx_model.graph.outputs:
        sizes: list[Any] = list(value.shape)
        for axis, name in graph.output_axes.get(value.name, {}).items():
            sizes[axis] = name
        value.shape = ir.Shape(sizes)
    label(onnx_model, describe(model, Arguments({}, {}, {}), config, {"graph": kind, **metadata}))
    with appearing(directory) as scratch:
        path = save(onnx_model, scratch)
        tested = _test(path, graph, tensors, config) if config.self_test else None
    return ExportResult.of(onnx_model, directory, {}, rewrites, tested)


def _test(path: Path, graph: Graph, tensors: tuple[torch.Tensor, ...], config: ExportConfig) -> SelfTest:
    """ONNX Runtime against PyTorch, every output, on the whole batch and on its first row.

    Raises:
        ExportError: an output differs more than rounding explains.
    """
    session, bound = OrtGraph(path), ROUNDING[config.dtype]
    calls: list[ParityNumbers] = []
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
            calls.append(parity(reference.float(), found[name].float()))
            if not SelfTest(session.ran_as, bound, (calls[-1],)).passed:
                raise ExportError(
                    f"self-test of {path.parent.name}/{path.name} failed at output {name}: relative L2 "
                    f"{calls[-1].rel_l2:.3g}, expected at most {bound:g} for {config.dtype}; report this model"
                )
    return SelfTest(session.ran_as, bound, tuple(calls))
