"""Trains the image tokenizer on single frames, then measures it on clips of held-out handwriting."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from f3prune.models.cogvideo.vq import PatchVQ
from f3prune.zoo.digits.dataset import CANVAS, ClipSource, Digits, load_split
from f3prune.zoo.digits.judge import Judge
from zoo_training.digits.progress import Log

IMAGE_TOKENS = 128
LEARNING_RATE = 3e-3
COMMITMENT = 0.25
"""Weight of the pull of latents towards their codes."""
BATCH = 48
WARM_UP = 0.15
"""Share of the run without quantisation, after which k-means places the codes."""
FIXED = 0.75
"""Share of the run after which unused codes are left alone."""
DECAY = 0.98
"""Memory of the moving averages that codes follow."""
RARE = 0.02
"""A code that is chosen less often than this, per batch, is moved to a latent that no code is near."""


@dataclass(frozen=True)
class VqReport:
    """On held-out clips: mean absolute error of a pixel (of [0, 1]), codes in use, and shares the judge gets right
    before (`real`) and after (`restored`) a round trip.
    """

    steps: int
    held_out_error: float
    codes: int
    codes_used: int
    real_digit_accuracy: float
    restored_digit_accuracy: float
    restored_motion_accuracy: float


class Codebook:
    """Moves the codes of `vq` to the running means of the latents that choose them."""

    def __init__(self, vq: PatchVQ) -> None:
        self.codes = vq.codebook.data
        self.nearest = vq.nearest
        self.counts = torch.ones(len(self.codes))
        self.sums = self.codes.clone()

    def place(self, latents: torch.Tensor, rounds: int = 20) -> None:
        """k-means over `latents` (`m c`); the first codes are far apart, not merely drawn at random."""
        # Most patches are empty: seeding by distance (k-means++) keeps codes from starting on the same dark spot.
        chosen = [latents[0]]
        closest = (latents - chosen[0]).square().sum(dim=1)
        while len(chosen) < len(self.codes):
            chosen.append(latents[int(torch.multinomial(closest.clamp(min=1e-12), 1))])
            closest = torch.minimum(closest, (latents - chosen[-1]).square().sum(dim=1))
        self.codes.copy_(torch.stack(chosen))
        for _ in range(rounds):
            counts, sums = self._gather(latents, self.nearest(latents))
            taken = counts > 0
            self.codes[taken] = sums[taken] / counts[taken, None]
        self.counts = counts.clamp(min=1.0)
        self.sums = self.codes * self.counts[:, None]

    def follow(self, latents: torch.Tensor, tokens: torch.Tensor, restart: bool) -> None:
        """One step of the moving averages over `latents` (`m c`) and their `tokens` (`m`)."""
        counts, sums = self._gather(latents, tokens)
        self.counts.lerp_(counts, 1.0 - DECAY)
        self.sums.lerp_(sums, 1.0 - DECAY)
        rare = torch.nonzero(self.counts < RARE)[:, 0]
        if restart and len(rare):
            error = (latents - self.codes[tokens]).square().sum(dim=1) + 1e-12
            places = latents[torch.multinomial(error, len(rare))]
            self.counts[rare], self.sums[rare] = 1.0, places
        self.codes.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])

    def _gather(self, latents: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sums = torch.zeros_like(self.codes).index_add_(0, tokens, latents)
        return torch.bincount(tokens, minlength=len(self.codes)).float(), sums


def train_vq(minutes: float, seed: int, log_path: Path, max_steps: int | None = None) -> tuple[PatchVQ, int]:
    """Trains for `minutes` of wall-clock time, or `max_steps` steps; gives the frozen tokenizer and its steps."""
    torch.manual_seed(seed)
    vq = PatchVQ(image_size=CANVAS, codebook_size=IMAGE_TOKENS)
    vq.codebook.requires_grad_(False)  # the codes follow averages, not gradients
    codebook = Codebook(vq)
    source = ClipSource(load_split(), seed)
    weights = [parameter for parameter in vq.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    started, step, share, placed = time.monotonic(), 0, 0.0, False
    with Log("tokenizer", log_path) as log:
        while share < 1.0:
            share = min(1.0, step / max_steps if max_steps else (time.monotonic() - started) / (60.0 * minutes))
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 50) * (1.0 - share) + 1e-6
            images = frames_of(source, BATCH)
            latents = vq.latents(images)
            flat = latents.detach().flatten(0, -2)
            if share >= WARM_UP and not placed:
                with torch.no_grad():
                    codebook.place(vq.latents(frames_of(source, 8 * BATCH)).flatten(0, -2))
                placed = True
            loss = latents.square().mean() * 1e-3  # keeps latents small while nothing else does
            codes = latents
            if placed:
                tokens = vq.nearest(latents.detach())
                quantised = vq.codebook[tokens]
                loss = COMMITMENT * (latents - quantised).square().mean()
                codes = latents + (quantised - latents).detach()
                codebook.follow(flat, tokens.flatten(), restart=share < FIXED)
            error = vq.images(codes) - images
            loss = loss + error.abs().mean() + 2.0 * error.square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            step += 1
            used = float(len(vq.nearest(flat).unique()))
            log.report(share, step=step, l1=error.abs().mean().item(), loss=loss.item(), used=used)
    vq.eval().requires_grad_(False)
    return vq, step


def frames_of(source: ClipSource, count: int) -> torch.Tensor:
    """Grey images `m h w` (float32 in [0, 1]) of digits anywhere on the canvas."""
    return source.batch(count, frames=1, still_share=0.5).video[:, 0, 0] * 0.5 + 0.5


def clips_of(split: Digits, seed: int, count: int, frames: int) -> tuple[torch.Tensor, list[int], list[str]]:
    """Clips `b f h w 3` (float32 in [0, 1]), what digit each shows and which way it goes."""
    clips = ClipSource(split, seed).batch(count, frames)
    return (clips.video * 0.5 + 0.5).permute(0, 2, 3, 4, 1).contiguous(), clips.digits, clips.directions


def measure_vq(vq: PatchVQ, judge: Judge, steps: int, seed: int, frames: int, count: int = 300) -> VqReport:
    """Round trips of `count` clips of held-out handwriting, judged."""
    video, digits, ways = clips_of(load_split(held_out=True), seed + 2, count, frames)
    tokens = vq.encode(video)
    restored = vq.decode(tokens)
    real, _ = _shares(judge, video, digits, ways)
    restored_digits, restored_motions = _shares(judge, restored, digits, ways)
    return VqReport(
        steps=steps,
        held_out_error=float((restored - video).abs().mean()),
        codes=len(vq.codebook),
        codes_used=len(tokens.unique()),
        real_digit_accuracy=real,
        restored_digit_accuracy=restored_digits,
        restored_motion_accuracy=restored_motions,
    )


def _shares(judge: Judge, video: torch.Tensor, digits: list[int], ways: list[str]) -> tuple[float, float]:
    verdicts = judge.judge(video.numpy())
    right_digits = sum(v.digit == digit for v, digit in zip(verdicts, digits, strict=True))
    right_ways = sum(v.direction == way for v, way in zip(verdicts, ways, strict=True))
    return right_digits / len(digits), right_ways / len(digits)
