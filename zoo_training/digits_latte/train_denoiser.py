"""Trains the Latte denoiser and its text encoder together, single images first, whole clips later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from f3prune.zoo.digits.dataset import FRAMES
from zoo_training.digits.architecture import build_text_encoder
from zoo_training.digits.build_tokenizer import MAX_TOKENS, build_tokenizer
from zoo_training.digits_latte.architecture import build_scheduler, build_transformer, with_variance
from zoo_training.training import Batch, DiffusionTrainer, Phase, Recipe, frame_latents, tidy_configs

KINDS = IMAGES, WHOLE = Batch(1, 64), Batch(FRAMES, 10)


class LatteTrainer(DiffusionTrainer):
    """Latents come from an image autoencoder; the positions of frames are learnt from whole clips only."""

    curriculum = (
        Phase(0.22, (IMAGES,)),
        Phase(0.50, (WHOLE, WHOLE, IMAGES)),
        Phase(0.75, (IMAGES, WHOLE)),
        Phase(1.00, (WHOLE,)),
    )

    def __init__(self, vae: Any, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        tokenizer = build_tokenizer()
        nets = {"transformer": build_transformer(), "text_encoder": build_text_encoder(len(tokenizer))}
        super().__init__(nets, {"vae": vae, "tokenizer": tokenizer, "scheduler": build_scheduler()}, recipe, folder)

    def is_matrix(self, name: str) -> bool:
        """Attention and feed-forward of the blocks."""
        return "transformer_blocks." in name and any(part in name for part in (".attn1.", ".attn2.", ".ff."))

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents `b c f h w`."""
        return frame_latents(self.vae, video)

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, prompts: list[str], kept: list[bool]) -> Any:
        """Velocity `b c f h w`.

        The pipeline cuts both prompts to the length of the wanted one; so a dropped prompt keeps its length here.
        """
        lengths = self._tokens(prompts).attention_mask
        tokens = self._tokens([prompt if keep else "" for prompt, keep in zip(prompts, kept, strict=True)])
        states = self.nets["text_encoder"](tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        mask = (1.0 - lengths.float())[:, None] * -10000.0
        mask = mask.repeat_interleave(noisy.shape[2], dim=0)
        return self.nets["transformer"](noisy, timesteps, states, encoder_attention_mask=mask, return_dict=False)[0]

    def _tokens(self, prompts: list[str]) -> Any:
        return self.tokenizer(
            prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )

    def export(self, folder: Path) -> None:
        """Writes the diffusers pipeline, with the averaged weights, as safetensors; the variance is zero."""
        from diffusers import LattePipeline

        LattePipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.average["text_encoder"].eval(),
            vae=self.vae,
            transformer=with_variance(self.average["transformer"]).eval(),
            scheduler=self.scheduler,
        ).save_pretrained(folder, safe_serialization=True)
        tidy_configs(folder)
