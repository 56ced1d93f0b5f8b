"""What the model card says of this model in particular."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo_training.model_card import DiffusionCard, read_json


def _transformer(folder: Path) -> dict[str, Any]:
    return read_json(folder / "transformer" / "config.json")


def _clip(folder: Path) -> dict[str, int]:
    size = read_json(folder / "vae" / "config.json")["sample_size"]
    return {"num_frames": _transformer(folder)["video_length"], "height": size, "width": size}


def _parts(folder: Path, training: dict[str, Any]) -> dict[str, str]:
    transformer = _transformer(folder)
    return {
        "transformer": f"denoiser, {transformer['num_layers']} spatial and as many temporal blocks in turn, of "
        f"{transformer['num_attention_heads']} heads of {transformer['attention_head_dim']}",
        "vae": "the autoencoder of `zoo:digits-image`, frame by frame, half size; mean absolute error on held-out "
        f"handwriting {training['vae']['held_out_error']:.4f} of the brightness range",
        "text_encoder": "one-layer T5, trained with the denoiser",
    }


def _shape(folder: Path) -> str:
    transformer = _transformer(folder)
    frames, size = transformer["video_length"], transformer["sample_size"]
    tokens = (size // transformer["patch_size"]) ** 2
    return (
        f"Latents are {transformer['in_channels']}x{frames}x{size}x{size} per clip (channels, frames, rows, columns); "
        f"a spatial attention sees {tokens} tokens, a temporal one {frames}."
    )


CARD = DiffusionCard(
    name="digits-latte",
    pipeline="LattePipeline",
    arguments=("video_length=pipeline.transformer.config.video_length", "height=32", "width=32", "clean_caption=False"),
    output="frames",
    clip=_clip,
    parts=_parts,
    shape=_shape,
    recipe="Muon and AdamW, velocity prediction, prompts left out one time in ten, averaged weights",
)
