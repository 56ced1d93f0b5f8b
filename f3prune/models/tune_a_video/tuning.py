"""One-shot tuning: an inflated image model learns the motion of a single clip."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune.core.errors import ArtifactError, InputError
from f3prune.models.tune_a_video.checkpoint import load_state, save_state

TRAINED = ("attn1.to_q", "attn2.to_q", "attn_temp")
"""Endings of the names of the modules that learn: queries of both image attentions, and all of temporal attention."""
_STRIDE = 1_000_003
"""Distance between the seeds of two steps, so that a step draws the same whether or not the run was interrupted."""


@dataclass(frozen=True)
class TuningConfig:
    """How to tune; the defaults are those of showlab/Tune-A-Video 7d4a89a.

    Attributes:
        steps: of the optimiser.
        learning_rate: constant, no warm-up.
        betas, epsilon, weight_decay: of AdamW.
        clip_norm: gradients longer than this are shortened to it.
        seed: of timesteps, noise and autoencoder samples.
    """

    steps: int = 500
    learning_rate: float = 3e-5
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    seed: int = 0


class Tuner:
    """The state of a tuning run.

    Args:
        unet: a ``TuneAVideoUNet``; its parameters are frozen but for those in ``TRAINED``.
        scheduler: says the noise schedule and what is predicted (``add_noise``, ``prediction_type``).
        text: states of the training prompt, ``b l d``.
        config: how to tune.

    Raises:
        InputError: the network has none of the modules that learn, or the scheduler predicts something else.
    """

    def __init__(self, unet: nn.Module, scheduler: Any, text: torch.Tensor, config: TuningConfig) -> None:
        self.unet, self.scheduler, self.text, self.config = unet, scheduler, text, config
        self.kind = scheduler.config.get("prediction_type", "epsilon")
        if self.kind not in {"epsilon", "v_prediction"}:
            raise InputError(f"the scheduler's prediction_type is {self.kind!r}, expected epsilon or v_prediction")
        unet.requires_grad_(False)
        for name, module in unet.named_modules():
            if name.endswith(TRAINED):
                module.requires_grad_(True)
        self.trained = {name: value for name, value in unet.named_parameters() if value.requires_grad}
        if not self.trained:
            raise InputError(f"{type(unet).__name__} has no {', '.join(TRAINED)}: give a Tune-A-Video UNet")
        self.optimizer = torch.optim.AdamW(
            self.trained.values(),
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        )
        self.done = 0
        self.losses: list[float] = []

    def loss(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the prediction.

        Args:
            latents: clean and scaled, ``b c f h w``.
            noise: of the same shape.
            timestep: ``b`` (int64), one per video.
        """
        noisy = self.scheduler.add_noise(latents, noise, timestep)
        wanted = noise if self.kind == "epsilon" else self.scheduler.get_velocity(latents, noise, timestep)
        predicted = self.unet(noisy, timestep, encoder_hidden_states=self.text, return_dict=False)[0]
        return nn.functional.mse_loss(predicted.float(), wanted.float())

    def step(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> float:
        """One update of the optimiser, on the inputs of ``loss``; returns the loss before it."""
        loss = self.loss(latents, noise, timestep)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.trained.values(), self.config.clip_norm)
        self.optimizer.step()
        self.done += 1
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def draw(self, mean: torch.Tensor, deviation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents, noise and timestep of the next step, from its own seed.

        Args:
            mean, deviation: of the scaled latents, ``1 c f h w``.

        Returns:
            A sample of the latents and noise (both ``1 c f h w``), and a uniform timestep ``1`` (int64).
        """
        generator = torch.Generator("cpu").manual_seed((self.config.seed + self.done * _STRIDE) % 2**63)

        def normal() -> torch.Tensor:
            return torch.randn(mean.shape, generator=generator).to(mean)

        latents, noise = mean + deviation * normal(), normal()
        timestep = torch.randint(0, int(self.scheduler.config.num_train_timesteps), (1,), generator=generator)
        return latents, noise, timestep.to(mean.device)

    def run(
        self,
        mean: torch.Tensor,
        deviation: torch.Tensor,
        on_step: Callable[[], None] = lambda: None,
        checkpoint: Path | None = None,
        every: int = 100,
        recipe: str = "",
    ) -> None:
        """Take the steps that are left, writing a checkpoint after every so many.

        Args:
            mean, deviation: of the clip's scaled latents, ``1 c f h w``.
            on_step: called after each step.
            checkpoint: file to write; None writes none.
            every: steps between two checkpoints.
            recipe: a digest of everything that the result depends on, kept in the checkpoint.

        Raises:
            InputError: the loss is not a finite number any more.
        """
        while self.done < self.config.steps:
            loss = self.step(*self.draw(mean, deviation))
            if not math.isfinite(loss):
                raise InputError(f"the loss is {loss} after {self.done} steps: give a lower `learning_rate`")
            on_step()
            if checkpoint is not None and self.done % every == 0 and self.done < self.config.steps:
                self.save(checkpoint, recipe)

    def save(self, path: Path, recipe: str) -> None:
        """Write what a later ``resume`` needs: what was learnt, the optimiser's moments, losses and the step."""
        facts = {"recipe": recipe, "done": self.done, "losses": self.losses, "config": asdict(self.config)}
        save_state(path, self.trained, [self.optimizer], facts)

    def resume(self, path: Path, recipe: str) -> None:
        """Go on from a checkpoint.

        Raises:
            ArtifactError: damaged, or of another clip, prompt, model or set of options.
        """
        tensors, facts = load_state(path, [self.optimizer])
        if facts.get("recipe") != recipe or set(tensors) != set(self.trained):
            raise ArtifactError(
                f"checkpoint {path} was made with another video, prompt, base or other options: "
                f"give the same ones, or remove the file and start again without `resume`"
            )
        with torch.no_grad():
            for name, value in tensors.items():
                self.trained[name].copy_(value)
        self.done, self.losses = int(facts["done"]), [float(loss) for loss in facts["losses"]]
