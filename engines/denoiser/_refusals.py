"""What changes a denoiser's weights or modules, and cannot change an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from f3prune.core.errors import InputError

T = TypeVar("T")
_WEIGHTS = (
    "add_adapter",
    "delete_adapters",
    "disable_adapters",
    "disable_lora",
    "enable_adapters",
    "enable_lora",
    "enable_lora_hotswap",
    "fuse_lora",
    "load_attn_procs",
    "load_lora_adapter",
    "set_adapter",
    "set_adapters",
    "unfuse_lora",
    "unload_lora",
    "_load_ip_adapter_weights",
)
_MODULES = (
    "enable_forward_chunking",
    "enable_freeu",
    "enable_layerwise_casting",
    "enable_xformers_memory_efficient_attention",
    "fuse_qkv_projections",
    "set_attention_backend",
    "set_attention_slice",
    "set_attn_processor",
    "set_default_attn_processor",
    "unfuse_qkv_projections",
)
WAYS = {
    **dict.fromkeys(
        _WEIGHTS,
        "run `calibrate(...)` with `lora=FILE` and all that follows, or fuse adapters into the dense pipeline "
        "(load_lora_weights, fuse_lora, unload_lora_weights), save that with save_pretrained, and calibrate it",
    ),
    **dict.fromkeys(_MODULES, "leave it out, the engine computes in its own way"),
    "enable_cache": "run `reuse(...)` and generate with `reuse=True`, or call reuse_steps",
}
"""Method -> what to do instead."""


def refusing(cls: type[T]) -> type[T]:
    """Give a class methods of these names that raise; without them the skeleton's would answer, and change nothing."""
    for name, way in WAYS.items():
        setattr(cls, name, _refusal(name, way))
    return cls


def _refusal(name: str, way: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise InputError(f"{name} cannot change an engine, whose weights and operators are fixed: {way}")

    refuse.__name__ = name
    refuse.__doc__ = "Refuse: an engine is fixed."
    return refuse
