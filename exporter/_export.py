"""Export one denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune.core.errors import ExportError, InputError
from f3prune.core.weights import LazyTensor, with_weights
from f3prune.exporter._axes import Axes, first_of_batch, symbolic_axes
from f3prune.exporter._config import DEFAULT_OPSET, MAX_OPSET, ExportConfig
from f3prune.exporter._dtype import in_dtype, inputs_in_dtype
from f3prune.exporter._files import appearing, save
from f3prune.exporter._passes import clean, output_name, to_onnx
from f3prune.exporter._result import ExportResult
from f3prune.exporter._trace import trace
from f3prune.exporter._weights import attach_weights, without_weights
from f3prune.exporter.arguments import Arguments, flatten_arguments
from f3prune.exporter.metadata import describe, family_if_known, label, output_names
from f3prune.exporter.rewrites.trace import long_half_attention
from f3prune.exporter.self_test import SelfTest, self_test


def export_denoiser(
    denoiser: nn.Module,
    inputs: Mapping[str, Any],
    directory: Path | str,
    config: ExportConfig | None = None,
    metadata: Mapping[str, str] | None = None,
    test_inputs: Sequence[Mapping[str, Any]] = (),
) -> ExportResult:
    """Write ``denoiser`` as ``directory/denoiser.onnx`` with its weights in ``denoiser.onnx.data``.

    Requires:
        a denoiser, dense or pruned, on the CPU or a GPU. Load a large one lazily (``load_pruned(..., lazy=True)``): its
        weights then go from file to file one at a time. Of one in memory in another dtype than ``config.dtype``, a
        converted copy is made.

    Does:
        traces the forward on ``inputs``, rewrites what backends refuse, writes the file, checks it, and runs it in ONNX
        Runtime against PyTorch on ``test_inputs`` (else on ``inputs``), and on the first sample alone.

    Ensures:
        inputs are named as in the denoiser's forward (``f3prune.exporter.arguments`` on nested ones), the output
        ``sample``, or ``out_sample`` where an input is called ``sample``, as in UNets; further ones as the family
        declares them. The batch is symbolic. The
        denoiser is unchanged. Both files appear whole, or nothing does; the same denoiser and inputs give the same
        graph, byte for byte.

    Args:
        denoiser: the model.
        inputs: forward arguments by name, as the denoising loop passes them.
        directory: made if need be.
        config: options.
        metadata: further properties of the graph, ``f3prune.`` is put in front of their names.
        test_inputs: recorded forward arguments, see ``f3prune.core.captured_calls``.

    Raises:
        InputError: the denoiser is in training mode, has weights without values, or the directory cannot be written.
        ExportError: the model cannot be traced or translated, or the file differs from PyTorch.
    """
    config = config or ExportConfig()
    _check(denoiser)
    model = in_dtype(denoiser, config.torch_dtype)
    arguments = _in_dtype(flatten_arguments(inputs), config)
    axes = _axes(denoiser, arguments, config)
    traceable, weights = without_weights(model)
    program = trace(traceable, arguments, axes)
    opset = config.opset or (MAX_OPSET if long_half_attention.is_used(program) else DEFAULT_OPSET)
    names = tuple(arguments.tensors)
    outputs = (output_name(names), *output_names(model)[1:])
    translated = to_onnx(program, names, axes, opset, outputs)
    del program, traceable
    attach_weights(translated, weights)
    graph, rewrites = clean(translated)
    label(graph, describe(model, arguments, config, metadata or {}))
    directory = Path(directory)
    with appearing(directory) as scratch:
        path = save(graph, scratch)
        skipped = _too_large(model, arguments, config) if config.self_test else None
        wanted = config.self_test and skipped is None
        tested = _test(path, model, arguments, axes, test_inputs, config) if wanted else None
    return ExportResult.of(graph, directory, arguments.constants, rewrites, tested, skipped)


def _check(denoiser: nn.Module) -> None:
    if denoiser.training:
        raise InputError(f"{type(denoiser).__name__} is in training mode: call .eval() before exporting it")
    for name, parameter in denoiser.named_parameters():
        if parameter.is_meta:
            raise InputError(
                f"weight {name} has no values (meta device): load the denoiser's weights before exporting it"
            )


def _in_dtype(arguments: Arguments, config: ExportConfig) -> Arguments:
    return Arguments(inputs_in_dtype(arguments.tensors, config.torch_dtype), arguments.constants, arguments.structure)


def _axes(denoiser: nn.Module, arguments: Arguments, config: ExportConfig) -> Axes:
    """Symbolic axes; the family says which input the latents are, else it is the first."""
    if not arguments.tensors:
        raise ExportError("no forward argument is a tensor: give the arguments of a denoiser call")
    family = family_if_known(denoiser)
    latents = next(iter(arguments.tensors))
    frames: int | None = None
    not_batched: tuple[str, ...] = ()
    if family is not None:
        if family.latents not in arguments.tensors:
            raise ExportError(f"the inputs lack {family.latents}, the latents of {family.title}")
        latents = family.latents
        frames = family.token_grid(denoiser, arguments.rebuild(arguments.tensors)).frames
        not_batched = family.not_batched
    return symbolic_axes(arguments.tensors, latents, frames, config.dynamic, not_batched)


def _too_large(denoiser: nn.Module, arguments: Arguments, config: ExportConfig) -> str | None:
    """Why the self-test would take too long, if it would."""
    family = family_if_known(denoiser)
    latents = next(iter(arguments.tensors)) if family is None else family.latents
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    numbers = arguments.tensors[latents].numel()
    if parameters * numbers <= config.self_test_limit:
        return None
    return (
        f"{parameters:,} parameters on latents of {numbers:,} numbers are more than {config.self_test_limit:g} "
        f"(self_test_limit)"
    )


def _test(
    path: Path,
    denoiser: nn.Module,
    arguments: Arguments,
    axes: Axes,
    test_inputs: Sequence[Mapping[str, Any]],
    config: ExportConfig,
) -> SelfTest:
    calls: list[dict[str, torch.Tensor]] = []
    for given in list(test_inputs)[: config.max_test_inputs]:
        call = _in_dtype(flatten_arguments(given), config)
        if call.constants != arguments.constants or set(call.tensors) != set(arguments.tensors):
            raise ExportError(
                f"a test input has arguments {sorted(call.tensors)} and constants {call.constants}, the graph "
                f"{sorted(arguments.tensors)} and {arguments.constants}: capture them from the same pipeline"
            )
        calls.append({name: tensor.to(arguments.tensors[name].dtype) for name, tensor in call.tensors.items()})
    calls = calls or [arguments.tensors]
    single = first_of_batch(calls[0], axes)
    if any(single[name].shape != tensor.shape for name, tensor in calls[0].items()):
        calls.append(single)
    return self_test(path, with_weights(denoiser, LazyTensor.value), arguments, calls, config.dtype)
