"""Find the head-shaped weights of an attention module by the attribute names that diffusers uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from f3prune.core.errors import InputError
from f3prune.families._base import Family, Layout, Site

if TYPE_CHECKING:
    from torch import nn


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
    names = family.attention
    heads = getattr(module, names.heads, None)
    query = getattr(module, names.query_key[0], None)
    if not isinstance(heads, int) or query is None:
        raise InputError(
            f"site {name} ({type(module).__name__}) has no {names.heads}/{names.query_key[0]}: "
            f"family {family.name} must declare it"
        )
    inner = int(query.weight.shape[0])

    def present(parts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{name}.{n}" for n in parts if getattr(module, n.partition(".")[0], None) is not None)

    outputs = [(output, 0) for output in present(names.outputs)]
    if not outputs:
        # A single-stream block concatenates attention and MLP and projects both with its own `proj_out`.
        outputs.append((f"{name.rpartition('.')[0]}.proj_out", 0))
        denoiser.get_submodule(outputs[0][0])
    norms = tuple(
        f"{name}.{n}"
        for n in names.norms
        if getattr(getattr(module, n, None), "weight", None) is not None
        and getattr(module, n).weight.numel() == inner
        and heads > 1
    )
    return Site(
        name=name,
        layout=layout,
        heads=heads,
        head_dim=inner // heads,
        query_key=present(names.query_key),
        value=present(names.value),
        outputs=tuple(outputs),
        head_norms=norms,
        heads_attribute=names.heads,
        gates=present(names.gates),
    )
