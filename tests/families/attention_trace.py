"""Record every attention call of a denoiser, by the attention module that makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from f3prune.core.calls import sample_of
from f3prune.families import Site

OUTSIDE = "<outside any attention module>"


@dataclass(frozen=True)
class Call:
    """Arguments of one scaled-dot-product attention: ``b h n d``."""

    query: torch.Tensor
    key: torch.Tensor
    mask: torch.Tensor | None


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        self.calls: dict[str, list[Call]] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is scaled_dot_product_attention:
            name = self.running[-1] if self.running else OUTSIDE
            mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
            arguments = dict(zip(("query", "key"), args, strict=False)) | {
                k: v for k, v in kwargs.items() if k in ("query", "key")
            }
            self.calls.setdefault(name, []).append(Call(arguments["query"], arguments["key"], mask))
        return function(*args, **kwargs)


def record(denoiser: nn.Module, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, list[Call]]]:
    """Output of the denoiser, and its attention calls by qualified module name, in the order of execution."""
    recorder = _Recorder()
    handles = []
    for name, module in denoiser.named_modules():
        if hasattr(module, "to_q") or hasattr(module, "to_query"):

            def enter(_module: nn.Module, _args: Any, name: str = name) -> None:
                recorder.running.append(name)

            def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
                recorder.running.pop()

            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
    try:
        with torch.no_grad(), recorder:
            output = sample_of(denoiser(**inputs, return_dict=False))
    finally:
        for handle in handles:
            handle.remove()
    return output, recorder.calls


@contextmanager
def silenced(denoiser: nn.Module, sites: list[Site]) -> Iterator[None]:
    """While active, the sites run but give zeros (both streams, where a site returns text too)."""

    def zero(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return tuple(torch.zeros_like(part) for part in output)
        return torch.zeros_like(output)

    handles = [denoiser.get_submodule(site.name).register_forward_hook(zero) for site in sites]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def with_latents(
    inputs: Mapping[str, Any], name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, Any]:
    """A copy of the inputs whose latents are changed."""
    return {**inputs, name: change(inputs[name].clone())}
