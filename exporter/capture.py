"""Capture what a real denoising loop passes to its denoiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from f3prune.core.errors import InputError


class _EnoughCalls(Exception):
    """Raised inside the loop once enough calls were seen."""


def capture_inputs(denoiser: nn.Module, run: Callable[[], object], max_calls: int) -> list[dict[str, Any]]:
    """Record the forward arguments of the first ``max_calls`` calls that ``run`` makes to ``denoiser``.

    Does:
        calls ``run()``, e.g. a pipeline, and stops it when it has seen enough.

    Ensures:
        arguments by name as they were passed (defaults and ``return_dict`` left out), tensors as detached copies on
        their device; the denoiser has no hook left.

    Raises:
        InputError: ``max_calls`` is below one, or ``run`` made no call.
    """
    if max_calls < 1:
        raise InputError(f"max_calls {max_calls}: expected 1 or more")
    signature = inspect.signature(type(denoiser).forward)
    calls: list[dict[str, Any]] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(calls) == max_calls:
            raise _EnoughCalls
        given = dict(signature.bind(module, *args, **kwargs).arguments)
        given.pop(next(iter(signature.parameters)), None)
        given.pop("return_dict", None)
        calls.append({name: _copy(value) for name, value in given.items()})

    handle = denoiser.register_forward_pre_hook(record, with_kwargs=True)
    try:
        run()
    except _EnoughCalls:
        pass
    finally:
        handle.remove()
    if not calls:
        raise InputError("the denoising loop never called its denoiser: pass the function that runs the pipeline")
    return calls


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_copy(item) for item in value)
    return value
