"""What of a pipeline is in memory, and when."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map_only

from f3prune.core.errors import InputError
from f3prune.pipelines.loading import load_denoiser, load_pipeline
from f3prune.pipelines.sources import ModelSource


def check_offload(offload: str, device: torch.device) -> None:
    """Refuse what makes no sense on this machine.

    Args:
        offload: ``none``, ``model``, ``sequential`` or ``layers``, see ``f3prune.core.choices.OFFLOADS``.
        device: that the models run on.

    Raises:
        InputError: ``model`` or ``sequential`` without a GPU.
    """
    if device.type == "cpu" and offload in ("model", "sequential"):
        raise InputError(
            f"`offload` {offload!r} moves weights between a GPU's memory and the machine's, and torch can use no GPU "
            f"here: `offload='layers'` leaves the denoiser's weights in their files"
        )


def check_engine_offload(offload: str, device: torch.device) -> None:
    """Refuse what makes no sense for the rest of a pipeline whose denoiser is an engine.

    Raises:
        InputError: anything but ``none`` without a GPU.
    """
    check_offload(offload, device)
    if lazy(offload, device):
        raise InputError(
            f"`offload` {offload!r} leaves a denoiser's weights in their files, and an engine has its own: leave it "
            f"out; text encoders leave memory after the prompt is encoded"
        )


def lazy(offload: str, device: torch.device) -> bool:
    """Whether a denoiser's weights stay in their files until they are used."""
    return offload == "layers" and device.type == "cpu"


def load_offloaded(source: ModelSource, dtype: torch.dtype, device: torch.device, offload: str) -> Any:
    """MODEL's pipeline with its weights where ``offload`` says, see :func:`check_offload`.

    Raises:
        InputError: see :func:`check_offload` and ``f3prune.pipelines.loading.load_pipeline``.
    """
    check_offload(offload, device)
    denoiser = load_denoiser(source, dtype, lazy=True) if lazy(offload, device) else None
    pipeline = load_pipeline(source, dtype, denoiser=denoiser)
    place(pipeline, device, offload)
    return pipeline


def place(pipeline: Any, device: torch.device, offload: str, keep: str | None = None) -> None:
    """Put a pipeline on ``device``, all at once or as ``offload`` says.

    Args:
        pipeline: a diffusers pipeline on the CPU.
        device: that its models run on.
        offload: see :func:`check_offload`; without a GPU nothing is left to do here.
        keep: name of a component that has its own place, an engine.
    """
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module) and name != keep}
    if offload == "none" or device.type == "cpu":
        for module in modules.values():
            module.to(device)
    elif offload == "model":
        from accelerate import cpu_offload_with_hook

        # A model goes to the GPU when it is called, and back when another one is.
        hook = None
        for module in modules.values():
            _, hook = cpu_offload_with_hook(module, device, prev_module_hook=hook)
    else:
        for module in modules.values():
            offload_module(module, device, offload)


def on_device(denoiser: nn.Module, device: torch.device, offload: str) -> nn.Module:
    """A denoiser on the CPU, put on ``device`` whole, or part by part as it runs."""
    if device.type == "cpu" or offload in ("none", "model"):
        return denoiser if device.type == "cpu" else denoiser.to(device)
    offload_module(denoiser, device, offload)
    return denoiser


def offload_module(module: nn.Module, device: torch.device, offload: str) -> None:
    """Let parts of a model on the CPU come to a GPU as they run: ``sequential`` or ``layers``."""
    if offload == "sequential":
        from accelerate import cpu_offload

        cpu_offload(module, device)
    else:
        from diffusers.hooks import apply_group_offloading

        apply_group_offloading(module, onload_device=device, offload_type="leaf_level", use_stream=True)


def encode_once(pipeline: Any) -> None:
    """Let the text encoders' weights go once the prompt is encoded.

    For a pipeline that is called with one prompt: the embeddings are kept, and a later call with the same arguments
    gets them again. Pipelines encode everything before they prepare latents.

    Requires:
        ``encode_prompt`` and ``prepare_latents``; a pipeline without them stays as it is.
    """
    encode, prepare = getattr(pipeline, "encode_prompt", None), getattr(pipeline, "prepare_latents", None)
    if encode is None or prepare is None:
        return
    kept: list[tuple[list[Any], Any, Any]] = []
    released = False

    def once(*args: Any, **kwargs: Any) -> Any:
        leaves, form = tree_flatten((args, kwargs))
        found = next((made for before, shape, made in kept if shape == form and _same(before, leaves)), None)
        if found is None:
            if released:
                raise InputError("this pipeline let its text encoders go after one prompt: load it again for another")
            found = encode(*args, **kwargs)
            kept.append((leaves, form, found))
        return tree_map_only(torch.Tensor, torch.clone, found)

    def prepare_after(*args: Any, **kwargs: Any) -> Any:
        nonlocal released
        if kept and not released:
            released = True
            for name, part in pipeline.components.items():
                if name.startswith("text_encoder") and isinstance(part, nn.Module):
                    release(part)
        return prepare(*args, **kwargs)

    pipeline.encode_prompt, pipeline.prepare_latents = once, prepare_after


def _same(first: list[Any], second: list[Any]) -> bool:
    """Arguments of equal values, tensors and all."""

    def equal(one: Any, other: Any) -> bool:
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)
        return one is other or (type(one) is type(other) and bool(one == other))

    return len(first) == len(second) and all(map(equal, first, second))


def give_back() -> None:
    """Return to the system what Python and the C library only keep for later: half of an engine that was closed."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        # Of glibc; other C libraries keep less.
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def release(module: nn.Module) -> None:
    """Give back the memory of a module's weights; its configuration, dtype and device stay."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.new_empty(0)
