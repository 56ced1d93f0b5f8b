"""Trains the autoencoder, then measures its reconstruction on held-out digits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from f3prune.zoo.digits.dataset import load_split
from zoo_training.digits.progress import Log
from zoo_training.digits.train_vae import KL, LATENT_NOISE, PENALTY, VaeReport
from zoo_training.digits_image.architecture import build_vae
from zoo_training.digits_image.dataset import ImageSource

LEARNING_RATE = 4e-3
BATCH = 32


def train_vae(minutes: float, seed: int, log_path: Path, max_steps: int | None = None) -> tuple[Any, VaeReport]:
    """Trains for `minutes` of wall-clock time (or `max_steps` steps) and sets the scaling factor from the latents."""
    torch.manual_seed(seed)
    vae = build_vae()
    source = ImageSource(load_split(), seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    started, step, share = time.monotonic(), 0, 0.0
    with Log("autoencoder", log_path) as log:
        while share < 1.0:
            elapsed = (time.monotonic() - started) / (60.0 * minutes)
            share = min(1.0, step / max_steps if max_steps else elapsed)
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 50) * (1.0 - share) ** 1.5 + 1e-6
            pixels = source.batch(BATCH).pixels
            posterior = vae.encode(pixels).latent_dist
            latents = posterior.sample()
            spread = latents.std(dim=(0, 2, 3))
            noisy = latents + LATENT_NOISE * spread.detach()[:, None, None] * torch.randn_like(latents)
            error = vae.decode(noisy).sample - pixels
            moments = latents.mean(dim=(0, 2, 3)).square().mean() + (spread - 1.0).square().mean()
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
    latents = vae.encode(ImageSource(load_split(), seed + 1).batch(256).pixels).latent_dist.mode()
    vae.register_to_config(scaling_factor=round(1.0 / float(latents.std()), 4))
    pixels = ImageSource(load_split(held_out=True), seed + 2).batch(256).pixels
    decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    return VaeReport(
        steps=steps,
        held_out_error=float((decoded - pixels).abs().mean()) / 2.0,
        latent_mean=latents.mean(dim=(0, 2, 3)).tolist(),
        latent_std=latents.std(dim=(0, 2, 3)).tolist(),
    )
