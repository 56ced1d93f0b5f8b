"""Trains the autoencoder on short clips, then measures its reconstruction on held-out digits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from f3prune.zoo.digits.dataset import ClipSource, load_split
from zoo_training.digits.architecture import build_vae
from zoo_training.digits.progress import Log

LATENT_NOISE = 0.1
"""Noise added to latents (in latent standard deviations) so that the decoder forgives small errors of the denoiser."""
PENALTY = 0.02
"""Weight of the pull of each latent channel towards zero mean and unit standard deviation."""
KL = 1e-6


@dataclass(frozen=True)
class VaeReport:
    """Reconstruction of held-out clips: mean absolute error in pixel units of [0, 1], and the latent spread."""

    steps: int
    held_out_error: float
    latent_mean: list[float]
    latent_std: list[float]


def train_vae(minutes: float, seed: int, log_path: Path, max_steps: int | None = None) -> tuple[Any, VaeReport]:
    """Trains for `minutes` of wall-clock time (or `max_steps` steps) and sets the scaling factor from the latents."""
    torch.manual_seed(seed)
    vae = build_vae()
    source = ClipSource(load_split(), seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=4e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    started, step, share = time.monotonic(), 0, 0.0
    with Log("autoencoder", log_path) as log:
        while share < 1.0:
            elapsed = (time.monotonic() - started) / (60.0 * minutes)
            share = min(1.0, step / max_steps if max_steps else elapsed)
            for group in optimizer.param_groups:
                group["lr"] = 4e-3 * min(1.0, (step + 1) / 50) * (1.0 - share) ** 1.5 + 1e-6
            frames, size = ((2, 16), (1, 16), (2, 16), (8, 4))[step % 4]
            video = source.batch(size, frames, still_share=0.5).video
            posterior = vae.encode(video).latent_dist
            latents = posterior.sample()
            spread = latents.std(dim=(0, 2, 3, 4))
            noisy = latents + LATENT_NOISE * spread.detach()[:, None, None, None] * torch.randn_like(latents)
            error = vae.decode(noisy).sample - video
            moments = latents.mean(dim=(0, 2, 3, 4)).square().mean() + (spread - 1.0).square().mean()
            kl = posterior.kl().mean() / latents[0].numel()
            loss = error.abs().mean() + 2.0 * error.square().mean() + PENALTY * moments + KL * kl
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            step += 1
            log.report(share, step=step, l1=error.abs().mean().item() / 2.0, moments=moments.item())
    vae.eval().requires_grad_(False)
    return vae, measure_vae(vae, step, seed)


@torch.no_grad()
def measure_vae(vae: Any, steps: int, seed: int) -> VaeReport:
    """Sets `scaling_factor` so that training latents have unit spread and measures held-out reconstruction."""
    latents = vae.encode(ClipSource(load_split(), seed + 1).batch(64).video).latent_dist.mode()
    vae.register_to_config(scaling_factor=round(1.0 / float(latents.std()), 4))
    video = ClipSource(load_split(held_out=True), seed + 2).batch(64).video
    decoded = vae.decode(vae.encode(video).latent_dist.mode()).sample
    return VaeReport(
        steps=steps,
        held_out_error=float((decoded - video).abs().mean()) / 2.0,
        latent_mean=latents.mean(dim=(0, 2, 3, 4)).tolist(),
        latent_std=latents.std(dim=(0, 2, 3, 4)).tolist(),
    )
