"""Attention over more keys than fp16 can count."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.fx.experimental.symbolic_shapes import statically_known_true

from f3prune.exporter.rewrites.trace._function_mode import FunctionRewrite

MOST_KEYS = 65504
"""The largest fp16 number."""


class LongHalfAttention(FunctionRewrite):
    """fp16 attention over more than 65 504 keys casts queries, keys and values to fp32, and the result back.

    Why:
        TensorRT's fused kernel sums the exponentials of all scores in the dtype of its inputs: where there are more of
        them than fp16's largest number, equal scores alone overflow, and the output is NaN (tier4/autoware-ml#95). Wan
        at 720p and 81 frames has 75 600 tokens. Queries, keys and values in fp32 make the kernel sum in fp32
        (TensorRT 11.3). bf16 has the range of fp32 and stays as it is.

    Requires:
        a number of keys that is known to be above the limit, whatever the symbolic sizes are.

    Ensures:
        the same values up to rounding, which is less.
    """

    def __init__(self) -> None:
        super().__init__({F.scaled_dot_product_attention: attend})


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """``scaled_dot_product_attention`` of ``b h n d`` in fp32; NotImplemented where fp16 does or is not used."""
    if query.dtype != torch.float16 or not statically_known_true(key.shape[-2] > MOST_KEYS):
        return NotImplemented
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.float()
    wide = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask, *args, **kwargs)
    return wide.to(query.dtype)


def is_used(program: torch.export.ExportedProgram) -> bool:
    """Whether a traced program holds an attention over so many keys."""
    return any(
        node.target is torch.ops.aten.scaled_dot_product_attention.default
        and node.args[0].meta["val"].dtype == torch.float32
        and bool(statically_known_true(node.args[1].meta["val"].shape[-2] > MOST_KEYS))
        for node in program.graph.nodes
        if node.op == "call_function"
    )
