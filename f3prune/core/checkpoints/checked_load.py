"""Load a component of a pipeline, and refuse weights that do not fit it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from f3prune.core.checkpoints.weight_files import has_variant
from f3prune.core.errors import InputError

_COMPUTED = re.compile(r"(^|\.)(position_ids|inv_freq)$")
"""Buffers that older versions of transformers saved and newer ones compute."""
_SCALES = re.compile(
    r"(scale|scales|scale_weight|weight_scale|weight_scale_inv|scale_input|input_scale|scaled_fp8|SCB|absmax|quant_map|"
    r"quant_state\.\w+|qweight|qzeros|g_idx)$"
)
"""What quantised checkpoints keep beside a weight."""


def load_checked(cls: Any, folder: Path, dtype: torch.dtype | None = None, variant: str | None = None) -> Any:
    """``cls.from_pretrained`` of a diffusers or transformers class, from safetensors alone.

    The libraries draw what is missing at random, or leave it without values, and drop what they do not know.

    Args:
        cls: the component's class.
        folder: its directory.
        dtype: of the weights; None keeps the class's default.
        variant: of the weight files, for a component that has them.

    Raises:
        InputError: weights are missing, left over or quantised; names the component and the first of them.
    """
    options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    if has_variant(folder, variant):
        options["variant"] = variant
    loaded, found = cls.from_pretrained(
        str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True, **options
    )
    unknown = {name for name in found["unexpected_keys"] if not _COMPUTED.search(name)}
    _refuse_misfits(folder, set(found["missing_keys"]), unknown)
    return loaded


def _refuse_misfits(folder: Path, missing: set[str], unknown: set[str]) -> None:
    if not missing and not unknown:
        return
    where = f"{folder.name} of {folder.parent}"
    scales = {name for name in unknown if _SCALES.search(name)}
    if scales:
        raise InputError(
            f"{where} is quantised: beside its weights are {_first(scales)}: give the checkpoint in fp32, fp16 or bf16"
        )
    prefix = _common_prefix(missing, unknown)
    if prefix:
        raise InputError(
            f"{where} has weights whose names begin with '{prefix}' ({_first(unknown)}): save the model again without "
            f"the wrapper that adds it, which torch.compile and trainers do"
        )
    parts = [f"lacks {_first(missing)}"] if missing else []
    parts += [f"has unknown {_first(unknown)}"] if unknown else []
    raise InputError(
        f"{where} does not fit its config.json, it {' and '.join(parts)}: give weights and configuration of one model"
    )


def _common_prefix(missing: set[str], unknown: set[str]) -> str:
    """What stands before every name of ``missing`` in ``unknown``; empty where that is not so."""
    if len(missing) != len(unknown):
        return ""
    longest = max(unknown, key=len)
    prefixes = {longest.removesuffix(name) for name in missing if longest.endswith(name)}
    return next((prefix for prefix in sorted(prefixes) if {prefix + name for name in missing} == unknown), "")


def _first(names: Iterable[str], most: int = 3) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")
