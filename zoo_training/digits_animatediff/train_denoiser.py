"""Puts motion modules into the zoo's trained image UNet and trains them on clips, everything else a little along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from f3prune import zoo
from f3prune.zoo.digits.dataset import DIRECTIONS, FRAMES
from zoo_training.digits_animatediff.architecture import build_unet
from zoo_training.digits_latte.architecture import build_scheduler
from zoo_training.training import Batch, DiffusionTrainer, Phase, Recipe, frame_latents, tidy_configs

KINDS = FIRST, PAIRS, WHOLE = Batch(1, 40), Batch(2, 20), Batch(FRAMES, 5)

LOUD = 100.0
"""Norm of the embeddings of direction words."""


def speak_up(text_encoder: Any, tokenizer: Any) -> None:
    """Makes the direction words heard: embeddings at right angles to each other, of norm ``LOUD``.

    The image model was never shown a direction, and its text encoder puts a hundred times the norm of a word's
    embedding on top of it, by the words before: what comes out for "left" and for "right" hardly differs, and a
    denoiser that gets the same for both learns in hours to move digits, but never whither.
    """
    words = tokenizer.convert_tokens_to_ids([f"{word}</w>" for word in DIRECTIONS])
    table = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        if float(table[words].norm(dim=1).min()) < LOUD / 2:
            table[words] = LOUD * torch.linalg.qr(torch.randn(table.shape[1], len(words))).Q.T


class AnimateDiffTrainer(DiffusionTrainer):
    """The motion modules start from nothing; UNet and text encoder start from `zoo:digits-image`.

    The image model predicts noise, this one velocity: where a clip's layout is decided there is little but noise, and
    an error of the predicted noise says next to nothing about the layout. Hence also the timesteps: where a digit is
    shows through the noise of eight frames in all but the last twentieth, and only there the direction is needed.

    First frames come first: they teach what a direction says about a place. Where a digit is in a whole clip depends on
    direction and time together, and hours of whole clips alone did not teach that.
    """

    curriculum = (Phase(0.35, KINDS), Phase(1.00, (WHOLE,)))
    timestep_centre = 2.5
    uniform_timesteps = 0.4
    still_share = 0.0

    def __init__(self, vae: Any, recipe: Recipe, folder: Path, start_from: Path | None = None) -> None:
        from diffusers import StableDiffusionPipeline, UNetMotionModel
        from transformers import CLIPTextModel

        torch.manual_seed(recipe.seed)
        image = StableDiffusionPipeline.from_pretrained(zoo.path("digits-image"), local_files_only=True)
        nets = {"unet": build_unet(image.unet), "text_encoder": image.text_encoder}
        if start_from is not None:
            nets["unet"] = UNetMotionModel.from_pretrained(start_from / "unet").train().requires_grad_(True)
            nets["text_encoder"] = CLIPTextModel.from_pretrained(start_from / "text_encoder")
        speak_up(nets["text_encoder"], image.tokenizer)
        parts = {"vae": vae, "tokenizer": image.tokenizer, "scheduler": build_scheduler()}
        super().__init__(nets, parts, recipe, folder)

    def is_matrix(self, name: str) -> bool:
        """Attention and feed-forward of the motion modules and of the image blocks."""
        return ".transformer_blocks." in name

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents `b c f h w`."""
        return frame_latents(self.vae, video)

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, prompts: list[str], kept: list[bool]) -> Any:
        """Velocity `b c f h w`; the text goes to every frame, as in the pipeline."""
        tokens = self.tokenizer(
            [prompt if keep else "" for prompt, keep in zip(prompts, kept, strict=True)],
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        states = self.nets["text_encoder"](tokens.input_ids)[0].repeat_interleave(noisy.shape[2], dim=0)
        return self.nets["unet"](noisy, timesteps, states, return_dict=False)[0]

    def export(self, folder: Path) -> None:
        """Writes the diffusers pipeline, with the averaged weights, as safetensors."""
        from diffusers import AnimateDiffPipeline

        AnimateDiffPipeline(
            vae=self.vae,
            text_encoder=self.average["text_encoder"].eval(),
            tokenizer=self.tokenizer,
            unet=self.average["unet"].eval(),
            motion_adapter=None,  # type: ignore[arg-type]  # its weights are in the UNet
            scheduler=self.scheduler,
        ).save_pretrained(folder, safe_serialization=True)
        tidy_configs(folder)
