"""Trains denoiser and text encoder together on latents of a pool of clips: single frames, short clips, whole clips."""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from f3prune.zoo.digits.dataset import Digits, load_split, typical
from f3prune.zoo.digits_wan.dataset import FRAMES, ClipSource
from zoo_training.digits_wan.architecture import (
    FLOW_SHIFT,
    LATENT_FRAMES,
    LAYERS,
    MAX_TOKENS,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
)
from zoo_training.training import Batch, Phase, Recipe, Trainer, tidy_configs

TYPICAL = 60
"""Of each digit so many of the images nearest to its mean are shown to the denoiser."""
LARGEST_SHARD = 15_500_000
"""Bytes of a file of a checkpoint: what comes back from a borrowed machine is limited to 16 MiB a file."""
FRAMES_SHARE = 0.25
"""Of the time for the pool, at most so much goes into single frames."""


@dataclass(frozen=True)
class Pool:
    """Latents of clips, made once.

    Attributes:
        clips: ``n c f h w``, normalised, bfloat16.
        clip_tokens: ``n l`` int64.
        frames: ``m c 1 h w``, of single frames.
        frame_tokens: ``m l`` int64.
        empty: ``l`` int64, of the empty prompt.
    """

    clips: torch.Tensor
    clip_tokens: torch.Tensor
    frames: torch.Tensor
    frame_tokens: torch.Tensor
    empty: torch.Tensor


@torch.no_grad()
def encode_pool(vae: Any, device: str, left: Any, clips: int, frames: int, seed: int = 0, batch: int = 32) -> Pool:
    """Encode clips and single frames of the training handwriting.

    Args:
        vae: trained, on the device, with the statistics of its latents.
        device: where.
        left: share of the time that is left, asked after every batch; at 0 what there is must do.
        clips, frames: wanted.
        seed: of the clips.
        batch: clips at a time; eight times as many single frames.
    """
    source = ClipSource(typical(load_split(), TYPICAL), seed, device)
    tokenizer = build_tokenizer()
    mean, deviation = (
        torch.tensor(values, device=device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    made: dict[int, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    for length, wanted, size, least in ((1, frames, 8 * batch, 1 - FRAMES_SHARE), (FRAMES, clips, batch, 0.0)):
        latents, tokens = made.setdefault(length, ([], []))
        while sum(len(part) for part in latents) < wanted and (left() > least or not latents):
            shown = source.batch(size, length)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                latent = vae.encode(shown.video).latent_dist.mode()
            latents.append(((latent.float() - mean) / deviation).to(torch.bfloat16))
            tokens.append(tokenize(tokenizer, shown.prompts).to(device))
    (frame_latents, frame_tokens), (clip_latents, clip_tokens) = made[1], made[FRAMES]
    return Pool(
        torch.cat(clip_latents),
        torch.cat(clip_tokens),
        torch.cat(frame_latents),
        torch.cat(frame_tokens),
        tokenize(tokenizer, [""]).to(device)[0],
    )


def tokenize(tokenizer: Any, prompts: list[str]) -> torch.Tensor:
    """Token ids ``b l``, padded to the length that the model is trained with."""
    found = tokenizer(prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    ids: torch.Tensor = found.input_ids
    return ids


def encode_text(text_encoder: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Text states ``b l d`` as the pipeline makes them: zero where the prompt has ended."""
    mask = (tokens != 0).long()
    states: torch.Tensor = text_encoder(tokens, mask).last_hidden_state
    return states * mask.unsqueeze(-1)


class WanTrainer(Trainer):
    """Flow matching: the denoiser learns the velocity from data to noise."""

    log_every = 1

    def __init__(
        self, pool: Pool, recipe: Recipe, folder: Path, device: str, sizes: tuple[int, int, int], layers: int = LAYERS
    ) -> None:
        """Give the latents and the sizes of batches of single frames, short clips and whole clips.

        A rehearsal has fewer ``layers`` than the model.
        """
        torch.manual_seed(recipe.seed)
        self.device, self.pool, self.tokenizer = torch.device(device), pool, build_tokenizer()
        nets = {"transformer": build_transformer(layers), "text_encoder": build_text_encoder(len(self.tokenizer))}
        frames, short, whole = Batch(1, sizes[0]), Batch(3, sizes[1]), Batch(LATENT_FRAMES, sizes[2])
        self.curriculum = (
            Phase(0.20, (frames,)),
            Phase(0.38, (short, frames, short)),
            Phase(0.80, (whole, whole, frames)),
            Phase(1.00, (whole,)),
        )
        self.began: float | None = None
        super().__init__({name: net.to(self.device) for name, net in nets.items()}, recipe, folder)

    def is_matrix(self, name: str) -> bool:
        """Attention and feed-forward of the blocks."""
        return ".blocks." in name and (".attn" in name or ".ffn." in name)

    def share(self) -> float:
        """Part of the run that is done, 0 to 1, by the clock on the wall: it runs while files are written."""
        if self.recipe.max_steps:
            return super().share()
        now = time.monotonic()
        self.began = now if self.began is None else self.began
        return min(1.0, (now - self.began) / 60 / self.recipe.minutes)

    def make_source(self, digits: Digits, seed: int) -> Any:
        """Numbers that choose from the pool."""
        del digits
        return np.random.default_rng(seed)

    def low_precision(self) -> torch.autocast:
        """Matrices are multiplied in bfloat16 on a GPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16)

    def loss(self, source: Any, batch: Batch) -> torch.Tensor:
        """Mean squared error of the velocity on a random batch."""
        latents, tokens = (
            (self.pool.frames, self.pool.frame_tokens)
            if batch.frames == 1
            else (self.pool.clips, self.pool.clip_tokens)
        )
        chosen = torch.from_numpy(source.integers(len(latents), size=batch.size)).to(self.device)
        clean, words = latents[chosen, :, : batch.frames].float(), tokens[chosen]
        dropped = torch.rand(batch.size, 1, device=self.device) < self.recipe.prompt_dropout
        words = torch.where(dropped, self.pool.empty, words)
        place, uniform, coin = torch.rand(3, batch.size, device=self.device)
        strata = (torch.arange(batch.size, device=self.device) + place) / batch.size
        sigma = torch.sigmoid(torch.special.ndtri(strata.clamp(1e-4, 1 - 1e-4)))
        sigma = torch.where(coin < 0.3, uniform, sigma)
        # One frame bears less noise than thirteen that show the same digit.
        shift = 1.0 + (FLOW_SHIFT - 1.0) * batch.frames / LATENT_FRAMES
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        noise = torch.randn_like(clean)
        spread = sigma.view(-1, 1, 1, 1, 1)
        with self.low_precision():
            states = encode_text(self.nets["text_encoder"], words)
            noisy = (1 - spread) * clean + spread * noise
            velocity = self.nets["transformer"](noisy, sigma * 1000, states, return_dict=False)[0]
        return torch.nn.functional.mse_loss(velocity.float(), noise - clean)

    def save(self) -> None:
        """Write the averaged weights, whatever moment the process is killed at: see ``save_average``."""
        facts = {"step": str(self.step), "seconds": f"{self.seconds:.0f}", "clips": json.dumps(self.clips)}
        save_average({name: self.average[name] for name in self.average}, self.folder, facts)

    def export(self, folder: Path) -> None:
        """Write the pipeline, but for the autoencoder, which is there already."""
        write_pipeline(dict(self.average.items()), folder)


def save_average(nets: dict[str, Any], folder: Path, facts: dict[str, str]) -> None:
    """Write networks as they are shipped, in files ``average-N.safetensors`` below the limit.

    All new files are complete under names of their own before the first takes an old one's place, so at every moment
    finished and waiting files together hold one whole checkpoint: ``load_average`` finds it.
    """
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for part, net in nets.items():
        for name, value in net.state_dict().items():
            kept = value.detach().to(torch.float32 if stays_float32(net, name) else torch.bfloat16).cpu().contiguous()
            if size + kept.nbytes > LARGEST_SHARD and shards[-1]:
                shards.append({})
                size = 0
            shards[-1][f"{part}.{name}"] = kept
            size += kept.nbytes
    paths = [folder / f"average-{number}.safetensors" for number in range(len(shards))]
    for path, shard in zip(paths, shards, strict=True):
        save_file(shard, f"{path}.tmp", metadata=facts | {"files": str(len(shards))})
    for path in paths:
        os.replace(f"{path}.tmp", path)


def load_average(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """The newest whole checkpoint that ``save_average`` left: tensors by network and name, and the facts.

    Raises ``FileNotFoundError`` if there is none.
    """
    found: dict[int, dict[str, Path]] = {}
    facts: dict[int, dict[str, str]] = {}
    for path in sorted(folder.glob("average-*.safetensors*")):
        try:
            with safe_open(path, "pt") as file:
                said = dict(file.metadata())
        except Exception:  # cut short: another file has taken its place, or an older checkpoint is whole
            continue
        step = int(said["step"])
        found.setdefault(step, {})[path.name.removesuffix(".tmp")] = path
        facts[step] = said
    whole = [step for step, paths in found.items() if len(paths) == int(facts[step]["files"])]
    if not whole:
        raise FileNotFoundError(f"{folder} holds no whole checkpoint")
    nets: dict[str, dict[str, torch.Tensor]] = {}
    for path in found[max(whole)].values():
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118  (the file is no mapping)
                part, name = key.split(".", 1)
                nets.setdefault(part, {})[name] = file.get_tensor(key).clone()  # not the file itself, which may go
    return nets, facts[max(whole)]


def stays_float32(net: Any, name: str) -> bool:
    """Whether diffusers and transformers keep the tensor of this name in float32 when the rest is bfloat16."""
    parts = set(name.split("."))
    return any(kept in parts for kept in getattr(net, "_keep_in_fp32_modules", None) or ())


def write_pipeline(nets: dict[str, Any], folder: Path) -> None:
    """Write ``WanPipeline`` around the autoencoder that lies in ``folder/vae``, in the precision of shipped weights."""
    from diffusers import AutoencoderKLWan, WanPipeline

    nets = copy.deepcopy(nets)
    for net in nets.values():
        for name, value in (*net.named_parameters(), *net.named_buffers()):
            value.data = value.data.to(torch.float32 if stays_float32(net, name) else torch.bfloat16)
    WanPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=nets["text_encoder"].eval(),
        vae=AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.bfloat16),
        transformer=nets["transformer"].eval(),
        scheduler=build_scheduler(),
    ).save_pretrained(folder, safe_serialization=True)
    tidy_configs(folder)
