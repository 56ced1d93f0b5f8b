"""Published models by name: what their configurations say of their size, for planning without their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from f3prune.core.errors import InputError

PREFIX = "published:"
_WAN: dict[str, Any] = {"text_dim": 4096, "freq_dim": 256, "in_channels": 16, "out_channels": 16}


@dataclass(frozen=True)
class PublishedShape:
    """A published denoiser at the size that its authors generate.

    Attributes:
        title: what people call it.
        class_name: of the denoiser.
        config: where it differs from the class's defaults.
        latent: frames, height and width in latent units; ``None`` for the configuration's own.
        batch: of one denoiser call: two where the pipeline runs guidance in one batch.
    """

    title: str
    class_name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    latent: tuple[int, int, int] | None = None
    batch: int = 2


PUBLISHED: dict[str, PublishedShape] = {
    "cogvideox-2b": PublishedShape("CogVideoX-2b, 49 frames of 480 × 720", "CogVideoXTransformer3DModel"),
    "cogvideox-5b": PublishedShape(
        "CogVideoX-5b, 49 frames of 480 × 720",
        "CogVideoXTransformer3DModel",
        {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
    ),
    "wan-1.3b": PublishedShape(
        "Wan 2.1 1.3B, 81 frames of 480 × 832",
        "WanTransformer3DModel",
        {**_WAN, "num_layers": 30, "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960},
        (21, 60, 104),
        1,
    ),
    "wan-14b": PublishedShape(
        "Wan 2.1 14B, 81 frames of 480 × 832",
        "WanTransformer3DModel",
        {**_WAN, "num_layers": 40, "num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824},
        (21, 60, 104),
        1,
    ),
    "hunyuan-video": PublishedShape(
        "HunyuanVideo, 129 frames of 720 × 1280", "HunyuanVideoTransformer3DModel", {}, (33, 90, 160), 1
    ),
    "animatediff-sd15": PublishedShape(
        "AnimateDiff on Stable Diffusion 1.5, 16 frames of 512 × 512",
        "UNetMotionModel",
        {"cross_attention_dim": 768, "num_attention_heads": 8, "motion_num_attention_heads": 8},
        (16, 64, 64),
    ),
    "cogvideo-9b": PublishedShape("CogVideo, stage 1, 5 frames of 400 tokens", "CogVideo"),
}


def published(spec: str) -> PublishedShape:
    """The shape that ``published:NAME`` means.

    Raises:
        InputError: no such name.
    """
    name = spec.removeprefix(PREFIX)
    if name not in PUBLISHED:
        known = ", ".join(f"{PREFIX}{known}" for known in PUBLISHED)
        raise InputError(f"no published shape {name!r}: choose one of {known}")
    return PUBLISHED[name]
