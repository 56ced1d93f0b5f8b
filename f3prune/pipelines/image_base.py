"""Stable Diffusion pipelines to tune: which ones can be, and their parts with the UNet inflated to video."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError

from f3prune.core.checkpoints.checked_load import load_checked
from f3prune.core.errors import InputError, reason_of
from f3prune.core.json_values import read_json
from f3prune.models.tune_a_video.pipeline import TuneAVideoPipeline
from f3prune.pipelines.sources import ModelSource

PARTS = {
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
    "unet": "UNet2DConditionModel",
    "scheduler": "",
}
"""Parts that a base must have, and their classes; any scheduler says what its noise schedule is."""


def check_base(source: ModelSource) -> None:
    """Refuse what is no Stable Diffusion 1.x or 2.x text-to-image pipeline.

    Raises:
        InputError: a denoiser alone, another kind of pipeline, or one that is conditioned on more than text.
    """
    needs = "give a Stable Diffusion 1.x or 2.x pipeline directory, or zoo:digits-image"
    if source.kind != "pipeline":
        raise InputError(f"`base` {source.spec} is a denoiser alone: {needs}")
    index = read_json(source.path / "model_index.json")
    for part, expected in PARTS.items():
        entry = index.get(part)
        name = str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] else ""
        if not name or (expected and name.removesuffix("Fast") != expected):
            has = f"a {name} as {part}, expected {expected}" if name else f"no {part}"
            raise InputError(f"`base` {source.spec}, a {source.class_name or 'directory'}, has {has}: {needs}")
    if "text_encoder_2" in index:
        raise InputError(f"`base` {source.spec} has two text encoders, as Stable Diffusion XL: {needs}")


def inflated(source: ModelSource, seed: int, frames: int) -> TuneAVideoPipeline:
    """The base as a video pipeline that was not tuned yet: its weights, and new temporal attention (float32, CPU).

    Args:
        source: a base that ``check_base`` let pass.
        seed: of the new layers' queries, keys and values; their output starts at zero.
        frames: the number that the pipeline makes by default.

    Raises:
        InputError: a part cannot be loaded, or is not one of a text-to-image model.
    """
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import CLIPTextModel, CLIPTokenizer

    from f3prune.models import TuneAVideoUNet

    options: dict[str, Any] = {"local_files_only": True}
    path, variant = source.path, source.variant
    try:
        vae = load_checked(AutoencoderKL, path / "vae", variant=variant)
        text_encoder = load_checked(CLIPTextModel, path / "text_encoder", variant=variant)
        tokenizer = CLIPTokenizer.from_pretrained(str(path / "tokenizer"), **options)
        scheduler = DDIMScheduler.from_pretrained(str(path / "scheduler"), **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = TuneAVideoUNet.from_2d(path / "unet", variant=variant)
    except InputError:
        raise
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        reason = reason_of(error)
        raise InputError(f"`base` {source.spec} could not be loaded ({reason}): download or save it again") from error
    channels, latent = unet.config.in_channels, vae.config.latent_channels
    if channels != latent:
        raise InputError(
            f"`base` {source.spec} denoises {channels} channels, and its autoencoder makes {latent}: "
            f"give a text-to-image model, not one for inpainting or editing"
        )
    for part in (vae, text_encoder, unet):
        part.float().eval().requires_grad_(False)
    return TuneAVideoPipeline(vae, text_encoder, tokenizer, unet, scheduler, num_frames=frames)
