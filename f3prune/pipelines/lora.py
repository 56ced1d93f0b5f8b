"""Fuse LoRAs into a denoiser: ``W + scale · B A`` for every layer that a file has a pair of matrices for."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from f3prune.core.errors import InputError, reason_of
from f3prune.core.json_values import parse_json
from f3prune.core.weights import LazyTensor, weight_dtype
from f3prune.families.classes import kept_in_fp32
from f3prune.pipelines.sources import Lora

_METADATA = "lora_adapter_metadata"
"""Where diffusers and peft write an adapter's configuration."""
_PAIR = re.compile(r"(.*)\.(lora_A|lora_B)\.(weight|bias)")
Weights = Mapping[str, torch.Tensor]


def fuse(denoiser: nn.Module, loras: tuple[Lora, ...], pipeline_class: Any, stored: torch.dtype) -> nn.Module:
    """Fuse LoRAs in place, one after the other; returns the denoiser.

    Sums are made in float32 and rounded to ``stored``, so that the dense model computes with the very weights that a
    pruned one is stored with.

    Args:
        denoiser: the dense one; its weights may be lazy, and are so afterwards.
        loras: files and scales.
        pipeline_class: of the pipeline, which knows the formats that LoRAs for it come in.
        stored: dtype of the denoiser's weights in their files.

    Raises:
        InputError: a file is no LoRA, or one for another model: names the file and the first layer that does not fit.
    """
    keep = kept_in_fp32(denoiser)
    for lora in loras:
        weights, factors = _read(lora, pipeline_class)
        for layer, name, change in _changes(denoiser, weights, factors, lora):
            held: torch.Tensor = getattr(denoiser.get_submodule(layer), name)
            rounded = weight_dtype(f"{layer}.{name}", held, stored, keep)
            total = torch.add(held.detach().float(), _like(held, change), alpha=lora.scale).to(rounded).to(held.dtype)
            setattr(denoiser.get_submodule(layer), name, nn.Parameter(total, requires_grad=False))
    return denoiser


def _like(held: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """The change, lazy where what it is added to is lazy."""
    if not isinstance(held, LazyTensor):
        return change.to(held.device)
    return LazyTensor.of(tuple(change.shape), change.dtype, lambda: change)


def _read(lora: Lora, pipeline_class: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Matrices of the denoiser's layers in peft's names, and each layer's factor beside the scale."""
    if not hasattr(pipeline_class, "lora_state_dict"):
        raise InputError(f"`lora` {lora.path}: {pipeline_class.__name__} takes no LoRA: leave it out")
    with _readable(lora):
        with safe_open(str(lora.path), framework="pt") as file:
            metadata = (file.metadata() or {}).get(_METADATA)
        found = pipeline_class.lora_state_dict(load_file(lora.path))
        state, alphas = found if isinstance(found, tuple) else (found, None)
        config = parse_json(metadata) if metadata else {}
    prefixes = tuple(f"{name}." for name in pipeline_class._lora_loadable_modules)
    denoisers = tuple(prefix for prefix in prefixes if prefix in {"transformer.", "unet."})
    others = sorted(name for name in state if name.startswith(prefixes) and not name.startswith(denoisers))
    if others:
        raise InputError(
            f"`lora` {lora.path} changes {others[0].partition('.')[0]} too, which is not pruned: fuse it with "
            f"load_lora_weights, fuse_lora and unload_lora_weights of diffusers, and save the pipeline"
        )
    weights = {}
    for name, tensor in state.items():
        prefix = next((prefix for prefix in denoisers if name.startswith(prefix)), "")
        weights[name.removeprefix(prefix)] = tensor.float()
    component = denoisers[0].removesuffix(".") if denoisers else ""
    if weights and not all(_PAIR.fullmatch(name) for name in weights):
        weights = _in_pefts_names(weights)
    return weights, _factors(weights, config, alphas or {}, component, lora)


def _in_pefts_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from diffusers.utils import convert_unet_state_dict_to_peft

    converted: dict[str, torch.Tensor] = convert_unet_state_dict_to_peft(weights)
    return converted


@contextlib.contextmanager
def _readable(lora: Lora) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"`lora` {lora.path} could not be read ({reason_of(error)}): give a LoRA in safetensors for this model"
        ) from error


def _factors(
    weights: Weights, config: Mapping[str, Any], alphas: Mapping[str, Any], component: str, lora: Lora
) -> dict[str, float]:
    """alpha / rank of every layer: 1 where a file says nothing, as in diffusers."""

    def of(key: str, default: Any = None) -> Any:
        return config.get(f"{component}.{key}", config.get(key, default))

    if of("use_dora"):
        raise InputError(f"`lora` {lora.path} is a DoRA, which cannot be fused so: give a plain LoRA")
    factors = {}
    for name, tensor in weights.items():
        match = _PAIR.fullmatch(name)
        if match is None or match[2] != "lora_A":
            continue
        layer, rank = match[1], tensor.shape[0]
        alpha = float(_of_layer(of("alpha_pattern") or {}, layer, of("lora_alpha", rank)))
        for given, value in alphas.items():
            if given.removeprefix(f"{component}.").removesuffix(".alpha") == layer:
                alpha = float(value)
        factors[layer] = alpha / (math.sqrt(rank) if of("use_rslora") else rank)
    return factors


def _of_layer(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """peft's patterns are regular expressions for the end of a layer's name."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer):
            return value
    return default


def _changes(
    denoiser: nn.Module, weights: Weights, factors: Mapping[str, float], lora: Lora
) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Layer, name of its parameter, and what is added to it at scale 1 (float32), once all are found to fit."""
    where = f"`lora` {lora.path}"
    if not weights:
        raise InputError(f"{where} has no weights for {type(denoiser).__name__}: give a LoRA for this model")
    changes = []
    modules = dict(denoiser.named_modules())
    for name in sorted(weights):
        match = _PAIR.fullmatch(name)
        if match is None:
            raise InputError(f"{where} holds {name}, which is no pair of LoRA matrices: give a plain LoRA")
        layer, part, kind = match.groups()
        held = getattr(modules.get(layer), kind, None)
        if not isinstance(held, torch.Tensor):
            lacks = "is no layer" if layer not in modules else f"has no {kind}"
            raise InputError(
                f"{where} is for another model: it changes {layer}, which {lacks} of this {type(denoiser).__name__}"
            )
        if part == "lora_A":
            continue
        if kind == "bias":
            change = weights[name]
        else:
            down = weights.get(f"{layer}.lora_A.weight")
            if down is None:
                raise InputError(f"{where} has lora_B of {layer} and no lora_A: download it again")
            change = weights[name].flatten(1) @ down.flatten(1)
            change = change.reshape(held.shape) if change.numel() == held.numel() else change
        if change.shape != held.shape:
            raise InputError(
                f"{where} is for another model: it changes {layer} by {json.dumps(list(change.shape))}, "
                f"and that has {json.dumps(list(held.shape))}"
            )
        changes.append((layer, kind, change * factors.get(layer, 1.0)))
    yield from changes


def lora_of(text: str) -> Lora:
    """``FILE`` or ``FILE:SCALE``; a directory stands for the one ``.safetensors`` file in it.

    Raises:
        InputError: no such file, not in safetensors, or the scale is no number.
    """
    name, colon, scale = text.rpartition(":")
    if not colon or Path(text).exists():
        name, scale = text, "1"
    try:
        factor = float(scale)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise InputError(f"`lora` {text}: the scale {scale!r} is no number: give FILE or FILE:SCALE, e.g. style:0.8")
    path = Path(name)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise InputError(f"`lora` {name} has {len(found)} .safetensors files, expected one: give the file")
        path = found[0]
    if path.suffix != ".safetensors" or not path.is_file():
        what = "does not exist" if not path.exists() else "is no .safetensors file"
        raise InputError(f"`lora` {name} {what}: give a LoRA as load_lora_weights takes it, in safetensors")
    return Lora(path.resolve(), factor)
