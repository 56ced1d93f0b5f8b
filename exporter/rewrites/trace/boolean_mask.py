"""Boolean attention masks as additive ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from f3prune.exporter.rewrites.trace._function_mode import FunctionRewrite


class BooleanMaskAsBias(FunctionRewrite):
    """Attention with a boolean mask becomes attention with a bias of 0 or a very negative number.

    Why:
        the exporter turns a boolean mask into a Where over all scores and, against rows without any key, an IsNaN and a
        second Where. ONNX Runtime's CPU provider has no bfloat16 Where (HunyuanVideo), TensorRT does not fuse the
        pattern into one attention kernel, and the scores of a long video are written three times.

    Requires:
        every query has a key to attend to; diffusers' masks hide padded text, never the video.

    Ensures:
        the same output to rounding: the bias is half of the dtype's lowest value, whose exponential is zero, and
        finite, so that adding a score cannot overflow. The mask is converted at its own size, before broadcasting.
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
    """``scaled_dot_product_attention`` with ``attn_mask`` (true = attend) as a bias; NotImplemented for other masks."""
    if attn_mask is None or attn_mask.dtype != torch.bool:
        return NotImplemented
    hidden = attn_mask.logical_not().to(query.dtype)
    bias = hidden * (torch.finfo(query.dtype).min / 2)
    return F.scaled_dot_product_attention(query, key, value, bias, *args, **kwargs)
