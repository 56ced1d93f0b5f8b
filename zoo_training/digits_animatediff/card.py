"""What the model card says of this model in particular."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo_training.model_card import DiffusionCard, read_json


def _unet(folder: Path) -> dict[str, Any]:
    return read_json(folder / "unet" / "config.json")


def _clip(folder: Path) -> dict[str, int]:
    size = read_json(folder / "vae" / "config.json")["sample_size"]
    return {"num_frames": _unet(folder)["motion_max_seq_length"], "height": size, "width": size}


def _parts(folder: Path, training: dict[str, Any]) -> dict[str, str]:
    widths = " and ".join(map(str, _unet(folder)["block_out_channels"]))
    return {
        "unet": f"denoiser of `zoo:digits-image`, {widths} channels, with motion modules on every level",
        "vae": "the autoencoder of `zoo:digits-image`, frame by frame, half size; mean absolute error on held-out "
        f"handwriting {training['vae']['held_out_error']:.4f} of the brightness range",
        "text_encoder": "the one-layer CLIP text model of `zoo:digits-image`, trained further with the denoiser",
    }


def _shape(folder: Path) -> str:
    unet, vae = _unet(folder), read_json(folder / "vae" / "config.json")
    size = vae["sample_size"] // 2 ** (len(vae["block_out_channels"]) - 1)
    channels, frames = unet["in_channels"], unet["motion_max_seq_length"]
    return f"Latents are {channels}x{frames}x{size}x{size} per clip (channels, frames, rows, columns)."


CARD = DiffusionCard(
    name="digits-animatediff",
    pipeline="AnimateDiffPipeline",
    arguments=("num_frames=pipeline.unet.config.motion_max_seq_length", "height=32", "width=32"),
    output="frames",
    clip=_clip,
    parts=_parts,
    shape=_shape,
    recipe="UNet and text encoder start from `zoo:digits-image`, the motion modules from nothing; Muon and AdamW, "
    "velocity prediction, prompts left out one time in ten, averaged weights",
)
