"""Find the head-shaped weights of an attention module by the attribute names that diffusers uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from f3prune.core.errors import InputError
from f3prune.families._base import Family, Layout, Site

if TYPE_CHECKING:
    from torch import nn

_QUERY_KEY = ("to_q", "to_k", "add_q_proj", "add_k_proj")
_VALUE = ("to_v", "add_v_proj")
_GATES = ("to_gate_logits",)
_NORMS = ("norm_q", "norm_k", "norm_added_q", "norm_added_k")


def _fused(module: nn.Module) -> bool:
    """Whether attention goes through ``to_qkv``. Older classes keep their mark after unfusing; their processor says."""
    if not getattr(module, "fused_projections", False):
        return False
    processor = type(getattr(module, "processor", None)).__name__
    return hasattr(module, "unfuse_projections") or processor.startswith("Fused")


def describe_site(denoiser: nn.Module, name: str, module: nn.Module, family: Family, layout: Layout) -> Site:
    """Read heads, head size and head-shaped layers off an attention module.

    Raises:
        InputError: projections are fused (``to_qkv``) or the module does not have the usual attributes.
    """
    if _fused(module):
        raise InputError(f"site {name} has fused projections: call denoiser.unfuse_qkv_projections() first")
    heads = module.heads
    to_q = getattr(module, "to_q", None)
    if not isinstance(heads, int) or to_q is None:
        raise InputError(
            f"site {name} ({type(module).__name__}) has no heads/to_q: family {family.name} must declare it"
        )
    inner = int(to_q.weight.shape[0])

    def present(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{name}.{n}" for n in names if getattr(module, n, None) is not None)

    outputs: list[tuple[str, int]] = []
    if getattr(module, "to_out", None) is not None:
        outputs.append((f"{name}.to_out.0", 0))
    if getattr(module, "to_add_out", None) is not None:
        outputs.append((f"{name}.to_add_out", 0))
    if not outputs:
        # A single-stream block concatenates attention and MLP and projects both with its own `proj_out`.
        outputs.append((f"{name.rpartition('.')[0]}.proj_out", 0))
        denoiser.get_submodule(outputs[0][0])
    norms = tuple(
        f"{name}.{n}"
        for n in _NORMS
        if getattr(getattr(module, n, None), "weight", None) is not None
        and getattr(module, n).weight.numel() == inner
        and heads > 1
    )
    return Site(
        name=name,
        layout=layout,
        heads=heads,
        head_dim=inner // heads,
        query_key=present(_QUERY_KEY),
        value=present(_VALUE),
        outputs=tuple(outputs),
        head_norms=norms,
        gates=present(_GATES),
    )
