"""Trains the denoiser and the text encoder together on latents of single images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from f3prune.zoo.digits.dataset import Digits
from zoo_training.digits_image.architecture import build_scheduler, build_text_encoder, build_unet
from zoo_training.digits_image.build_tokenizer import MAX_TOKENS, build_tokenizer
from zoo_training.digits_image.dataset import ImageSource
from zoo_training.training import Batch, DiffusionTrainer, Phase, Recipe, tidy_configs

IMAGES = Batch(1, 40)
FLAT_UNTIL = 0.5


class ImageTrainer(DiffusionTrainer):
    """Batches are images `b c h w` with prompts that may name their place; half of the timesteps are uniform."""

    title = "unet"
    curriculum = (Phase(1.00, (IMAGES,)),)
    uniform_timesteps = 0.5

    def __init__(self, vae: Any, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        tokenizer = build_tokenizer()
        nets = {"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)}
        super().__init__(nets, {"vae": vae, "tokenizer": tokenizer, "scheduler": build_scheduler()}, recipe, folder)

    def is_matrix(self, name: str) -> bool:
        """Attention and feed-forward of the blocks."""
        return ".transformer_blocks." in name

    def make_source(self, digits: Digits, seed: int) -> ImageSource:
        """Images of digits anywhere on the canvas."""
        return ImageSource(digits, seed)

    def draw(self, source: ImageSource, batch: Batch) -> tuple[torch.Tensor, list[str]]:
        """Images `b c h w` (float32 in [-1, 1]) and their prompts."""
        images = source.batch(batch.size)
        return images.pixels, images.prompts

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents `b c h w` of images `b c h w`."""
        return self.vae.encode(video).latent_dist.mode() * self.vae.config.scaling_factor  # type: ignore[no-any-return]

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, prompts: list[str], kept: list[bool]) -> Any:
        """Noise `b c h w`."""
        tokens = self.tokenizer(
            [prompt if keep else "" for prompt, keep in zip(prompts, kept, strict=True)],
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        states = self.nets["text_encoder"](tokens.input_ids)[0]
        return self.nets["unet"](noisy, timesteps, states).sample

    def export(self, folder: Path) -> None:
        """Writes the diffusers pipeline, with the averaged weights, as safetensors."""
        from diffusers import StableDiffusionPipeline

        StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.average["text_encoder"].eval(),
            tokenizer=self.tokenizer,
            unet=self.average["unet"].eval(),
            scheduler=self.scheduler,
            safety_checker=None,  # type: ignore[arg-type]
            feature_extractor=None,  # type: ignore[arg-type]
            requires_safety_checker=False,
        ).save_pretrained(folder, safe_serialization=True)
        tidy_configs(folder)
