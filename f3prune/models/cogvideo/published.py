"""Names of the published checkpoints, and what is wrong with a checkpoint that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from f3prune.core.errors import InputError
from f3prune.models.cogvideo.config import CogVideoConfig

_LAYER = {
    "input_layernorm": "attention_norm_in",
    "attention.query_key_value": "spatial.to_qkv",
    "attention.dense": "spatial.to_out",
    "third_layernorm": "attention_norm_out",
    "post_attention_layernorm": "mlp_norm_in",
    "mlp.dense_h_to_4h": "mlp_in",
    "mlp.dense_4h_to_h": "mlp_out",
    "fourth_layernorm": "mlp_norm_out",
}
_TABLES = {
    "transformer.word_embeddings.weight": "word_embeddings.weight",
    "transformer.position_embeddings.weight": "position_embeddings.weight",
    "mixins.extra_position_embedding.position_embeddings.weight": "frame_position_embeddings.weight",
    "transformer.final_layernorm.weight": "final_norm.weight",
    "transformer.final_layernorm.bias": "final_norm.bias",
}


def names(config: CogVideoConfig) -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """Published name, our names and published shape of every tensor; several of ours split the rows evenly."""
    width, inner = config.hidden_size, 4 * config.hidden_size
    rows = {
        "word_embeddings.weight": (config.vocab_size, width),
        "position_embeddings.weight": (config.max_sequence_length, width),
        "frame_position_embeddings.weight": (config.additional_seqlen, width),
    }
    for published, ours in _TABLES.items():
        yield published, (ours,), rows.get(ours, (width,))
    outs = {"spatial.to_qkv": 3 * width, "mlp_in": inner}
    for index in range(config.num_layers):
        for theirs, ours in _LAYER.items():
            out = outs.get(ours, width)
            shape = (out, inner if ours == "mlp_out" else width)
            prefix = f"transformer.layers.{index}.{theirs}"
            yield f"{prefix}.weight", (f"layers.{index}.{ours}.weight",), (width,) if "norm" in ours else shape
            yield f"{prefix}.bias", (f"layers.{index}.{ours}.bias",), (out,)
        plus, temporal = "mixins.attention_plus", f"layers.{index}.temporal"
        for kind, extent in (("weight", (width,)), ("bias", ())):
            split = tuple(f"{temporal}.{part}.{kind}" for part in ("to_q", "to_k", "to_v"))
            yield f"{plus}.query_key_value.{index}.{kind}", split, (3 * width, *extent)
            yield f"{plus}.dense.{index}.{kind}", (f"{temporal}.to_out.0.{kind}",), (width, *extent)
        yield f"{plus}.attn_distribution.{index}", (f"layers.{index}.gate",), (width,)


def translate(state_dict: Mapping[str, torch.Tensor], config: CogVideoConfig) -> dict[str, torch.Tensor]:
    """A published state dict under our names, views of the same memory.

    Raises:
        InputError: tensors are missing, left over or misshapen; the message names them all.
    """
    expected = {published: (ours, shape) for published, ours, shape in names(config)}
    missing = [name for name in expected if name not in state_dict]
    extra = [name for name in state_dict if name not in expected]
    odd = [
        f"{name} {list(state_dict[name].shape)} instead of {list(shape)}"
        for name, (_, shape) in expected.items()
        if name in state_dict and tuple(state_dict[name].shape) != shape
    ]
    found_wrong = (("missing", missing), ("left over", extra), ("misshapen", odd))
    complaints = [f"{what}: {', '.join(listed)}" for what, listed in found_wrong if listed]
    if complaints:
        raise InputError(
            f"the checkpoint does not fit a CogVideo of {config.num_layers} layers and width {config.hidden_size}; "
            f"{'; '.join(complaints)}. Give the configuration it was trained with"
        )
    found: dict[str, torch.Tensor] = {}
    for published, (ours, _) in expected.items():
        found.update(zip(ours, state_dict[published].chunk(len(ours), dim=0), strict=True))
    return found
