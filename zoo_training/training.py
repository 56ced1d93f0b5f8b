"""The training loop that the zoo's networks share: two learning rates, a moving average, checkpoints, a curriculum."""

from __future__ import annotations

import copy
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from f3prune.models.tune_a_video.checkpoint import load_state, save_state
from f3prune.zoo.digits.dataset import ClipSource, Digits, load_split, typical
from zoo_training.digits.muon import Muon
from zoo_training.digits.progress import Log


@dataclass(frozen=True)
class Batch:
    """A batch of `size` clips of `frames` frames."""

    frames: int
    size: int


@dataclass(frozen=True)
class Phase:
    """Until `until` (share of the run), the steps go through `batches` in turn."""

    until: float
    batches: tuple[Batch, ...]


@dataclass(frozen=True)
class Recipe:
    """How to train. Training stops after `minutes` of training time, or after `max_steps` steps if that is set.

    The matrices of attention and feed-forward learn at `matrix_rate` times the learning rate of the rest. Only the
    `typical` most typical images of each digit are shown. `bfloat16` multiplies matrices in that precision; weights
    stay float32.
    """

    minutes: float
    max_steps: int | None = None
    seed: int = 0
    learning_rate: float = 2e-3
    matrix_rate: float = 2.5
    warm_up: int = 40
    flat_until: float = 0.6
    prompt_dropout: float = 0.1
    typical: int = 30
    bfloat16: bool = False
    checkpoint_seconds: float = 90.0


class Trainer(ABC):
    """State of a run: the networks, their moving averages, the optimizers and how far it is.

    A model gives `curriculum`, `matrices`, `loss` and `export`; `nets` holds what is trained, by name.
    """

    title = "denoiser"
    log_every = 20
    curriculum: tuple[Phase, ...]

    def __init__(self, nets: Mapping[str, torch.nn.Module], recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.nets = torch.nn.ModuleDict(dict(nets))
        self.average = copy.deepcopy(self.nets).requires_grad_(False)
        named = list(self.nets.named_parameters())
        chosen = [parameter for name, parameter in named if parameter.ndim == 2 and self.is_matrix(name)]
        identities = {id(matrix) for matrix in chosen}
        rest = [parameter for _, parameter in named if id(parameter) not in identities]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            Muon(chosen, lr=recipe.learning_rate),
            torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        )
        self.step = 0
        self.seconds = 0.0
        self.clips: dict[str, int] = {}

    @abstractmethod
    def is_matrix(self, name: str) -> bool:
        """Whether the two-dimensional parameter of this name learns by Muon."""

    @abstractmethod
    def loss(self, source: Any, batch: Batch) -> torch.Tensor:
        """The loss (scalar) of one random batch from `make_source`."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Writes the pipeline, with the averaged weights, as safetensors."""

    def make_source(self, digits: Digits, seed: int) -> Any:
        """What batches are drawn from: clips, unless a model is shown something else."""
        return ClipSource(digits, seed)

    @property
    def checkpoint(self) -> Path:
        """The file that holds everything needed to carry on."""
        return self.folder / f"{self.title}.checkpoint.safetensors"

    def save(self) -> None:
        """Writes the checkpoint, replacing the one before."""
        tensors = {f"nets.{name}": value for name, value in self.nets.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        facts = {"step": self.step, "seconds": self.seconds, "clips": self.clips}
        save_state(self.checkpoint, tensors, self.optimizers, facts)

    def resume(self) -> None:
        """Carries on from the checkpoint in the folder."""
        tensors, facts = load_state(self.checkpoint, self.optimizers)
        for prefix, nets in (("nets.", self.nets), ("average.", self.average)):
            nets.load_state_dict(
                {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            )
        self.step, self.seconds, self.clips = int(facts["step"]), float(facts["seconds"]), dict(facts["clips"])

    def share(self) -> float:
        """Part of the run that is done, 0 to 1."""
        done = self.step / self.recipe.max_steps if self.recipe.max_steps else self.seconds / 60 / self.recipe.minutes
        return min(1.0, done)

    def learning_rate(self) -> float:
        """Warm-up, then flat, then a cosine down to zero."""
        falling = max(0.0, (self.share() - self.recipe.flat_until) / (1.0 - self.recipe.flat_until))
        warm = min(1.0, (self.step + 1) / self.recipe.warm_up)
        return self.recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * falling))

    def train(self, log_path: Path) -> None:
        """Runs to the end of the recipe, writing a checkpoint every few minutes and at the end."""
        torch.manual_seed(self.recipe.seed + self.step)
        source = self.make_source(typical(load_split(), self.recipe.typical), self.recipe.seed + self.step)
        saved = time.monotonic()
        with Log(self.title, log_path, self.log_every) as log:
            while self.share() < 1.0:
                before = time.monotonic()
                phase = next(phase for phase in self.curriculum if self.share() < phase.until)
                batch = phase.batches[self.step % len(phase.batches)]
                loss, norm = self._update(source, batch)
                self.clips[str(batch.frames)] = self.clips.get(str(batch.frames), 0) + batch.size
                self.step += 1
                self._follow()
                self.seconds += time.monotonic() - before
                log.report(self.share(), step=self.step, loss=loss, norm=norm)
                if time.monotonic() - saved > self.recipe.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def low_precision(self) -> torch.autocast:
        """The precision that the recipe multiplies matrices in."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16)

    def _update(self, source: Any, batch: Batch) -> tuple[float, float]:
        for optimizer, factor in zip(self.optimizers, (self.recipe.matrix_rate, 1.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = factor * self.learning_rate()
        loss = self.loss(source, batch)
        self.nets.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.nets.parameters(), 1.0)
        with self.low_precision():  # Muon's matrix products bear it well
            for optimizer in self.optimizers:
                optimizer.step()
        return loss.item(), float(norm)

    def _follow(self) -> None:
        decay = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages: list[torch.Tensor] = list(self.average.parameters())
            values: list[torch.Tensor] = list(self.nets.parameters())
            torch._foreach_lerp_(averages, values, 1.0 - decay)


def tidy_configs(folder: Path) -> None:
    """Takes out of each part's configuration where it was loaded from, which means nothing elsewhere."""
    for config in folder.glob("*/config.json"):
        values = json.loads(config.read_text(encoding="utf-8"))
        values.pop("_name_or_path", None)
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def draw_timesteps(batch: Batch, count: int, centre: float, uniform: float) -> torch.Tensor:
    """Timesteps `b` (int64, 0 to `count` - 1) for one batch.

    A share `uniform` is uniform. The rest is logit-normal, stratified, around the noise at which the digit is decided;
    `centre` is its logit for one frame. As frames show the same digit, more frames bear more noise.
    """
    strata = (torch.arange(batch.size) + torch.rand(batch.size)) / batch.size
    centre += 0.18 * math.log2(batch.frames)
    shares = torch.sigmoid(centre + torch.special.ndtri(strata.clamp(1e-4, 1.0 - 1e-4)))
    shares = torch.where(torch.rand(batch.size) < uniform, torch.rand(batch.size), shares)
    return (shares * count).long().clamp(max=count - 1)


def frame_latents(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Latents `b c f h w` of a video `b c f h w` in [-1, 1], by an autoencoder of images, frame by frame."""
    latents: torch.Tensor = vae.encode(video.transpose(1, 2).flatten(0, 1)).latent_dist.mode()
    latents = latents * vae.config.scaling_factor
    return latents.unflatten(0, (video.shape[0], video.shape[2])).transpose(1, 2).contiguous()  # type: ignore[no-any-return,no-untyped-call]


class DiffusionTrainer(Trainer):
    """A denoiser and a text encoder that learn together, on latents of an autoencoder that stays as it is."""

    timestep_centre = 0.5
    uniform_timesteps = 0.3
    still_share = 0.5

    def __init__(self, nets: Mapping[str, torch.nn.Module], parts: Mapping[str, Any], recipe: Recipe, folder: Path):
        super().__init__(nets, recipe, folder)
        self.vae, self.tokenizer, self.scheduler = parts["vae"], parts["tokenizer"], parts["scheduler"]

    @abstractmethod
    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents, laid out as the denoiser wants them, of what `draw` gives: a video `b c f h w` in [-1, 1]."""

    @abstractmethod
    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, prompts: list[str], kept: list[bool]) -> Any:
        """What the denoiser makes of noisy latents; a prompt that is not `kept` is to be seen as the empty one."""

    def draw(self, source: Any, batch: Batch) -> tuple[torch.Tensor, list[str]]:
        """A random batch: a video `b c f h w` (float32 in [-1, 1]) and the prompts."""
        clips = source.batch(batch.size, batch.frames, self.still_share)
        return clips.video, clips.prompts

    def loss(self, source: Any, batch: Batch) -> torch.Tensor:
        """Mean squared error of the predicted noise or velocity on one random batch."""
        video, prompts = self.draw(source, batch)
        with torch.no_grad():
            latents = self.encode(video)
        kept = source.generator.random(batch.size) >= self.recipe.prompt_dropout
        count = self.scheduler.config.num_train_timesteps
        timesteps = draw_timesteps(batch, count, self.timestep_centre, self.uniform_timesteps)
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            target = self.scheduler.get_velocity(latents, noise, timesteps)
        with self.low_precision():
            predicted = self.predict(noisy, timesteps, prompts, kept.tolist())
        return torch.nn.functional.mse_loss(predicted.float(), target)
