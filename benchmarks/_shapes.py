"""The CogVideoX shape that several benchmarks share: heads of 64 as in the published models, fewer and narrower."""

from __future__ import annotations

from typing import Any


def cogvideox_config(layers: int = 6, frames: int = 13, side: int = 16, text: int = 32) -> dict[str, Any]:
    """Arguments of ``CogVideoXTransformer3DModel`` for ``frames`` latent frames of ``side`` × ``side`` tokens."""
    return {
        "num_attention_heads": 6,
        "attention_head_dim": 64,
        "num_layers": layers,
        "time_embed_dim": 256,
        "text_embed_dim": 256,
        "max_text_seq_length": text,
        "sample_width": 2 * side,
        "sample_height": 2 * side,
        "sample_frames": 4 * (frames - 1) + 1,
    }
