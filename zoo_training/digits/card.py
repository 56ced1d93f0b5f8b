"""What the model card says of this model in particular."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo_training.model_card import DiffusionCard, read_json


def _transformer(folder: Path) -> dict[str, Any]:
    return read_json(folder / "transformer" / "config.json")


def _clip(folder: Path) -> dict[str, int]:
    transformer, vae = _transformer(folder), read_json(folder / "vae" / "config.json")
    return {"num_frames": transformer["sample_frames"], "height": vae["sample_height"], "width": vae["sample_width"]}


def _parts(folder: Path, training: dict[str, Any]) -> dict[str, str]:
    transformer = _transformer(folder)
    return {
        "transformer": f"denoiser, {transformer['num_layers']} layers of {transformer['num_attention_heads']} heads of "
        f"{transformer['attention_head_dim']}",
        "vae": "causal autoencoder, half size, no merging of frames; mean absolute error on held-out clips "
        f"{training['vae']['held_out_error']:.4f} of the brightness range",
        "text_encoder": "one-layer T5, trained with the denoiser",
    }


def _shape(folder: Path) -> str:
    transformer = _transformer(folder)
    frames, height, width = (transformer[f"sample_{side}"] for side in ("frames", "height", "width"))
    tokens = frames * height * width // transformer["patch_size"] ** 2
    return (
        f"Latents are {frames}x{transformer['in_channels']}x{height}x{width} per clip (frames, channels, rows, "
        f"columns); the denoiser sees {tokens} video tokens and {transformer['max_text_seq_length']} text tokens."
    )


CARD = DiffusionCard(
    name="digits",
    pipeline="CogVideoXPipeline",
    arguments=("max_sequence_length=pipeline.transformer.config.max_text_seq_length",),
    output="frames",
    clip=_clip,
    parts=_parts,
    shape=_shape,
    recipe="Muon and AdamW, velocity prediction, prompts left out one time in ten, averaged weights",
)
