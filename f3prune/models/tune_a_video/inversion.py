"""DDIM inversion: the start latents from which deterministic sampling leads back to a given clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from f3prune.core.errors import InputError


@torch.no_grad()
def invert(
    unet: Any,
    scheduler: Any,
    latents: torch.Tensor,
    text: torch.Tensor,
    steps: int = 50,
    on_step: Callable[[torch.Tensor], None] = lambda _: None,
) -> torch.Tensor:
    """Run DDIM backwards, from a clip to noise, without guidance (Song et al., arXiv 2010.02502, eq. 14).

    As in showlab/Tune-A-Video 7d4a89a, the network is told the noise level that a step leads to, while its input still
    has the level that the step comes from.

    Args:
        unet: predicts the noise (or the velocity, if the scheduler says so) from ``b c f h w``.
        scheduler: a ``DDIMScheduler``; its timesteps are set.
        latents: clean, scaled latents ``b c f h w``.
        text: states ``b l d``; of the empty prompt, usually.
        steps: of the inversion; sampling should take as many.
        on_step: called with the latents after every step.

    Returns:
        Noise latents ``b c f h w``.

    Raises:
        InputError: more steps than the noise schedule has, or a scheduler that predicts something else.
    """
    count = int(scheduler.config.num_train_timesteps)
    if not 1 <= steps <= count:
        raise InputError(f"{steps} inversion steps, expected 1 to {count}, the length of the noise schedule")
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in {"epsilon", "v_prediction"}:
        raise InputError(f"the scheduler's prediction_type is {kind!r}, and inversion needs epsilon or v_prediction")
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps.flip(0):
        level, source = int(timestep), int(timestep) - count // steps
        here = scheduler.final_alpha_cumprod if source < 0 else scheduler.alphas_cumprod[source]
        there = scheduler.alphas_cumprod[level]
        predicted = unet(latents, timestep.to(latents.device), encoder_hidden_states=text, return_dict=False)[0]
        if kind == "v_prediction":
            predicted = here**0.5 * predicted + (1 - here) ** 0.5 * latents
        clean = (latents - (1 - here) ** 0.5 * predicted) / here**0.5
        latents = there**0.5 * clean + (1 - there) ** 0.5 * predicted
        on_step(latents)
    return latents
