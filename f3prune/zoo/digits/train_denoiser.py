"""Trains the denoiser and the text encoder together on latents of clips, single images first, whole clips later."""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from f3prune.zoo.digits.architecture import build_scheduler, build_text_encoder, build_transformer
from f3prune.zoo.digits.build_tokenizer import MAX_TOKENS, build_tokenizer
from f3prune.zoo.digits.dataset import ClipSource, load_split, typical
from f3prune.zoo.digits.muon import Muon
from f3prune.zoo.digits.progress import Log


@dataclass(frozen=True)
class Batch:
    """A batch of `size` clips of `frames` frames."""

    frames: int
    size: int


KINDS = IMAGES, PAIRS, SHORT, WHOLE = Batch(1, 64), Batch(2, 40), Batch(4, 24), Batch(8, 10)


@dataclass(frozen=True)
class Phase:
    """Until `until` (share of the run), the steps go through `batches` in turn."""

    until: float
    batches: tuple[Batch, ...]


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


@dataclass
class Recipe:
    """How to train. Training stops after `minutes` of training time, or after `max_steps` steps if that is set.

    The matrices of attention and feed-forward learn at `matrix_rate` times the learning rate of the rest. Only the
    `typical` most typical images of each digit are shown.
    """

    minutes: float
    max_steps: int | None = None
    seed: int = 0
    learning_rate: float = 2e-3
    matrix_rate: float = 2.5
    warm_up: int = 40
    flat_until: float = 0.62
    prompt_dropout: float = 0.1
    still_share: float = 0.5
    typical: int = 30
    checkpoint_seconds: float = 90.0
    curriculum: tuple[Phase, ...] = field(default=CURRICULUM)


def draw_timesteps(batch: Batch, count: int) -> torch.Tensor:
    """Timesteps `b` (int64, 0 to `count` - 1) for one batch.

    A fifth is uniform. The rest is logit-normal, stratified, around the noise at which the digit is decided; as frames
    show the same digit, more frames bear more noise.
    """
    strata = (torch.arange(batch.size) + torch.rand(batch.size)) / batch.size
    centre = 0.3 + 0.18 * math.log2(batch.frames)
    shares = torch.sigmoid(centre + torch.special.ndtri(strata.clamp(1e-4, 1.0 - 1e-4)))
    shares = torch.where(torch.rand(batch.size) < 0.2, torch.rand(batch.size), shares)
    return (shares * count).long().clamp(max=count - 1)


class Trainer:
    """State of a run: the two networks, their moving averages, the optimizers and how far it is."""

    def __init__(self, vae: Any, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.vae, self.recipe, self.folder = vae, recipe, folder
        self.tokenizer = build_tokenizer()
        self.scheduler = build_scheduler()
        self.nets = torch.nn.ModuleDict(
            {"transformer": build_transformer(), "text_encoder": build_text_encoder(len(self.tokenizer))}
        )
        self.average = copy.deepcopy(self.nets).requires_grad_(False)
        matrices = [
            parameter
            for name, parameter in self.nets.named_parameters()
            if parameter.ndim == 2 and (".attn1." in name or ".ff." in name)
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
        return self.folder / "denoiser.ckpt"

    def save(self) -> None:
        """Writes the checkpoint, replacing the one before."""
        state = {
            "nets": self.nets.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def resume(self) -> None:
        """Carries on from the checkpoint in the folder."""
        state = torch.load(self.checkpoint, weights_only=True)
        self.nets.load_state_dict(state["nets"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])

    def share(self) -> float:
        """Part of the run that is done, 0 to 1."""
        done = self.step / self.recipe.max_steps if self.recipe.max_steps else self.seconds / 60 / self.recipe.minutes
        return min(1.0, done)

    def learning_rate(self) -> float:
        """Warm-up, then flat, then a cosine down to zero."""
        share, flat = self.share(), self.recipe.flat_until
        falling = max(0.0, (share - flat) / (1.0 - flat))
        return (
            self.recipe.learning_rate
            * min(1.0, (self.step + 1) / self.recipe.warm_up)
            * 0.5
            * (1 + math.cos(math.pi * falling))
        )

    def loss(self, source: ClipSource, batch: Batch) -> torch.Tensor:
        """Mean squared error of the predicted velocity on one random batch."""
        clips = source.batch(batch.size, batch.frames, self.recipe.still_share)
        with torch.no_grad():
            latents = self.vae.encode(clips.video).latent_dist.mode() * self.vae.config.scaling_factor
        latents = latents.permute(0, 2, 1, 3, 4).contiguous()
        kept = source.generator.random(batch.size) >= self.recipe.prompt_dropout
        prompts = [prompt if keep else "" for prompt, keep in zip(clips.prompts, kept, strict=True)]
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        states = self.nets["text_encoder"](tokens.input_ids)[0]
        timesteps = draw_timesteps(batch, self.scheduler.config.num_train_timesteps)
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        velocity = self.scheduler.get_velocity(latents, noise, timesteps)
        predicted = self.nets["transformer"](noisy, states, timesteps, return_dict=False)[0]
        return torch.nn.functional.mse_loss(predicted, velocity)

    def train(self, log_path: Path) -> None:
        """Runs to the end of the recipe, writing a checkpoint every few minutes and at the end."""
        torch.manual_seed(self.recipe.seed + self.step)
        source = ClipSource(typical(load_split(), self.recipe.typical), self.recipe.seed + self.step)
        saved = time.monotonic()
        with Log("denoiser", log_path) as log:
            while self.share() < 1.0:
                before = time.monotonic()
                phase = next(phase for phase in self.recipe.curriculum if self.share() < phase.until)
                batch = phase.batches[self.step % len(phase.batches)]
                for optimizer, factor in zip(self.optimizers, (self.recipe.matrix_rate, 1.0), strict=True):
                    for group in optimizer.param_groups:
                        group["lr"] = factor * self.learning_rate()
                loss = self.loss(source, batch)
                self.nets.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(self.nets.parameters(), 1.0)
                for optimizer in self.optimizers:
                    optimizer.step()
                self.step += 1
                self._follow()
                self.seconds += time.monotonic() - before
                drawn = {f"clips_{kind.frames}": batch.size * (kind == batch) for kind in KINDS}
                log.report(self.share(), step=self.step, loss=loss.item(), norm=float(norm), **drawn)
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
        from diffusers import CogVideoXPipeline

        pipeline = CogVideoXPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.average["text_encoder"].eval(),
            vae=self.vae,
            transformer=self.average["transformer"].eval(),
            scheduler=self.scheduler,
        )
        pipeline.save_pretrained(folder, safe_serialization=True)
        for config in folder.glob("*/config.json"):
            values = json.loads(config.read_text(encoding="utf-8"))
            values.pop("_name_or_path", None)  # where the part was loaded from, which means nothing elsewhere
            config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
