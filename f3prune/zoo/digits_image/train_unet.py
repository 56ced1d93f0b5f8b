"""Trains the denoiser and the text encoder together on latents of single images."""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from f3prune.models.tune_a_video.checkpoint import load_state, save_state
from f3prune.zoo.digits.dataset import load_split, typical
from f3prune.zoo.digits.muon import Muon
from f3prune.zoo.digits.progress import Log
from f3prune.zoo.digits_image.architecture import build_scheduler, build_text_encoder, build_unet
from f3prune.zoo.digits_image.build_tokenizer import MAX_TOKENS, build_tokenizer
from f3prune.zoo.digits_image.dataset import ImageSource


@dataclass(frozen=True)
class Recipe:
    """How to train. Training stops after `minutes` of training time, or after `max_steps` steps if that is set.

    The matrices of attention and feed-forward learn at `matrix_rate` times the learning rate of the rest. Only the
    `typical` most typical images of each digit are shown.
    """

    minutes: float
    max_steps: int | None = None
    seed: int = 0
    batch: int = 40
    learning_rate: float = 2e-3
    matrix_rate: float = 2.5
    warm_up: int = 40
    flat_until: float = 0.5
    prompt_dropout: float = 0.1
    typical: int = 30
    checkpoint_seconds: float = 90.0


def draw_timesteps(size: int, count: int) -> torch.Tensor:
    """Timesteps `b` (int64, 0 to `count` - 1): half uniform, half around the noise at which the digit is decided."""
    strata = (torch.arange(size) + torch.rand(size)) / size
    shares = torch.sigmoid(0.5 + torch.special.ndtri(strata.clamp(1e-4, 1.0 - 1e-4)))
    shares = torch.where(torch.rand(size) < 0.5, torch.rand(size), shares)
    return (shares * count).long().clamp(max=count - 1)


class Trainer:
    """State of a run: the two networks, their moving averages, the optimizers and how far it is."""

    def __init__(self, vae: Any, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.vae, self.recipe, self.folder = vae, recipe, folder
        self.tokenizer = build_tokenizer()
        self.scheduler = build_scheduler()
        self.nets = torch.nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(self.tokenizer)})
        self.average = copy.deepcopy(self.nets).requires_grad_(False)
        matrices = [
            parameter
            for name, parameter in self.nets.named_parameters()
            if parameter.ndim == 2 and ".transformer_blocks." in name
        ]
        chosen = {id(matrix) for matrix in matrices}
        rest = [parameter for parameter in self.nets.parameters() if id(parameter) not in chosen]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, lr=recipe.learning_rate),
            torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        )
        self.step = 0
        self.seconds = 0.0

    @property
    def checkpoint(self) -> Path:
        """The file that holds everything needed to carry on."""
        return self.folder / "unet.checkpoint.safetensors"

    def save(self) -> None:
        """Writes the checkpoint, replacing the one before."""
        tensors = {f"nets.{name}": value for name, value in self.nets.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        save_state(self.checkpoint, tensors, self.optimizers, {"step": self.step, "seconds": self.seconds})

    def resume(self) -> None:
        """Carries on from the checkpoint in the folder."""
        tensors, facts = load_state(self.checkpoint, self.optimizers)
        for prefix, nets in (("nets.", self.nets), ("average.", self.average)):
            nets.load_state_dict(
                {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            )
        self.step, self.seconds = int(facts["step"]), float(facts["seconds"])

    def share(self) -> float:
        """Part of the run that is done, 0 to 1."""
        done = self.step / self.recipe.max_steps if self.recipe.max_steps else self.seconds / 60 / self.recipe.minutes
        return min(1.0, done)

    def learning_rate(self) -> float:
        """Warm-up, then flat, then a cosine down to zero."""
        falling = max(0.0, (self.share() - self.recipe.flat_until) / (1.0 - self.recipe.flat_until))
        warm = min(1.0, (self.step + 1) / self.recipe.warm_up)
        return self.recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * falling))

    def loss(self, source: ImageSource) -> torch.Tensor:
        """Mean squared error of the predicted noise on one random batch."""
        images = source.batch(self.recipe.batch)
        with torch.no_grad():
            latents = self.vae.encode(images.pixels).latent_dist.mode() * self.vae.config.scaling_factor
        kept = source.generator.random(len(images.prompts)) >= self.recipe.prompt_dropout
        prompts = [prompt if keep else "" for prompt, keep in zip(images.prompts, kept, strict=True)]
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        states = self.nets["text_encoder"](tokens.input_ids)[0]
        timesteps = draw_timesteps(len(prompts), self.scheduler.config.num_train_timesteps)
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        return torch.nn.functional.mse_loss(self.nets["unet"](noisy, timesteps, states).sample, noise)

    def train(self, log_path: Path) -> None:
        """Runs to the end of the recipe, writing a checkpoint every few minutes and at the end."""
        torch.manual_seed(self.recipe.seed + self.step)
        source = ImageSource(typical(load_split(), self.recipe.typical), self.recipe.seed + self.step)
        saved = time.monotonic()
        with Log("denoiser", log_path) as log:
            while self.share() < 1.0:
                before = time.monotonic()
                for optimizer, factor in zip(self.optimizers, (self.recipe.matrix_rate, 1.0), strict=True):
                    for group in optimizer.param_groups:
                        group["lr"] = factor * self.learning_rate()
                loss = self.loss(source)
                self.nets.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(self.nets.parameters(), 1.0)
                for optimizer in self.optimizers:
                    optimizer.step()
                self.step += 1
                self._follow()
                self.seconds += time.monotonic() - before
                log.report(self.share(), step=self.step, loss=loss.item(), norm=float(norm))
                if time.monotonic() - saved > self.recipe.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def _follow(self) -> None:
        decay = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages: list[torch.Tensor] = list(self.average.parameters())
            values: list[torch.Tensor] = list(self.nets.parameters())
            torch._foreach_lerp_(averages, values, 1.0 - decay)

    def export(self, folder: Path) -> None:
        """Writes the diffusers pipeline, with the averaged weights, as safetensors."""
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.average["text_encoder"].eval(),
            tokenizer=self.tokenizer,
            unet=self.average["unet"].eval(),
            scheduler=self.scheduler,
            safety_checker=None,  # type: ignore[arg-type]
            feature_extractor=None,  # type: ignore[arg-type]
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(folder, safe_serialization=True)
        for config in folder.glob("*/config.json"):
            values = json.loads(config.read_text(encoding="utf-8"))
            values.pop("_name_or_path", None)  # where the part was loaded from, which means nothing elsewhere
            config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
