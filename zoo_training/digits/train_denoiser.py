"""Trains the denoiser and the text encoder together on latents of clips, single images first, whole clips later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from zoo_training.digits.architecture import build_scheduler, build_text_encoder, build_transformer
from zoo_training.digits.build_tokenizer import MAX_TOKENS, build_tokenizer
from zoo_training.training import Batch, DiffusionTrainer, Phase, Recipe, tidy_configs

KINDS = IMAGES, PAIRS, SHORT, WHOLE = Batch(1, 64), Batch(2, 40), Batch(4, 24), Batch(8, 10)
FLAT_UNTIL = 0.62
CURRICULUM = (
    Phase(0.20, (IMAGES,)),
    Phase(0.29, (PAIRS,)),
    Phase(0.43, (SHORT,)),
    Phase(0.57, (WHOLE,)),
    Phase(0.73, (IMAGES, PAIRS, IMAGES, WHOLE)),
    Phase(0.85, (PAIRS, SHORT, WHOLE)),
    Phase(1.00, (WHOLE,)),
)
"""Motion is learnt from few clips, digits need many: so images come back once the motion is there."""
FURTHER = (Phase(2 / 3, (IMAGES, WHOLE)), Phase(1.00, (WHOLE,)))
"""For weights that know motion already: images teach the digits, whole clips keep the motion and have the last word."""


class DigitsTrainer(DiffusionTrainer):
    """Latents come from a causal autoencoder of clips; `start_from` is a pipeline whose weights are trained further."""

    timestep_centre = 0.3
    uniform_timesteps = 0.2

    def __init__(self, vae: Any, recipe: Recipe, folder: Path, start_from: Path | None = None) -> None:
        torch.manual_seed(recipe.seed)
        self.curriculum = FURTHER if start_from else CURRICULUM
        tokenizer = build_tokenizer()
        nets = load_nets(start_from) if start_from else build_nets(len(tokenizer))
        super().__init__(nets, {"vae": vae, "tokenizer": tokenizer, "scheduler": build_scheduler()}, recipe, folder)

    def is_matrix(self, name: str) -> bool:
        """Attention and feed-forward of the blocks."""
        return ".attn1." in name or ".ff." in name

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents `b f c h w`."""
        latents = self.vae.encode(video).latent_dist.mode() * self.vae.config.scaling_factor
        return latents.permute(0, 2, 1, 3, 4).contiguous()  # type: ignore[no-any-return]

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, prompts: list[str], kept: list[bool]) -> Any:
        """Velocity `b f c h w`."""
        tokens = self.tokenizer(
            [prompt if keep else "" for prompt, keep in zip(prompts, kept, strict=True)],
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        states = self.nets["text_encoder"](tokens.input_ids)[0]
        return self.nets["transformer"](noisy, states, timesteps, return_dict=False)[0]

    def export(self, folder: Path) -> None:
        """Writes the diffusers pipeline, with the averaged weights, as safetensors."""
        from diffusers import CogVideoXPipeline

        CogVideoXPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.average["text_encoder"].eval(),
            vae=self.vae,
            transformer=self.average["transformer"].eval(),
            scheduler=self.scheduler,
        ).save_pretrained(folder, safe_serialization=True)
        tidy_configs(folder)


def build_nets(words: int) -> dict[str, torch.nn.Module]:
    """The untrained networks, for a vocabulary of `words` tokens."""
    return {"transformer": build_transformer(), "text_encoder": build_text_encoder(words)}


def load_nets(pipeline: Path) -> dict[str, torch.nn.Module]:
    """The networks of an exported pipeline, ready to be trained."""
    from diffusers import CogVideoXTransformer3DModel
    from transformers import T5EncoderModel

    return {
        "transformer": CogVideoXTransformer3DModel.from_pretrained(pipeline / "transformer").train(),
        "text_encoder": T5EncoderModel.from_pretrained(pipeline / "text_encoder").train(),
    }
