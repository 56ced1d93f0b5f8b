"""Trains the transformer on image tokens of clips, single frames first, whole clips later; both channels learn."""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

from f3prune.models.cogvideo.vq import PatchVQ
from f3prune.zoo.digits.dataset import ClipSource, load_split, typical
from f3prune.zoo.digits.muon import Muon
from f3prune.zoo.digits.progress import Log
from f3prune.zoo.digits_cogvideo.architecture import FRAMES, Float32Attention, build_transformer
from f3prune.zoo.digits_cogvideo.sequences import build_tokenizer, lay_out
from f3prune.zoo.training import Batch, Phase

KINDS = IMAGES, PAIRS, WHOLE = Batch(1, 48), Batch(2, 24), Batch(FRAMES, 10)
CURRICULUM = (
    Phase(0.12, (IMAGES,)),
    Phase(0.20, (IMAGES, PAIRS)),
    Phase(0.70, (IMAGES, WHOLE, WHOLE)),
    Phase(1.00, (IMAGES, WHOLE, WHOLE, WHOLE)),
)
"""Single frames are cheap and soon teach what the digits look like; how they move takes most of the time."""


@dataclass
class Recipe:
    """How to train. Training stops after `minutes` of training time, or after `max_steps` steps if that is set.

    The matrices of the layers learn at `matrix_rate` times the learning rate of the rest. Only the `typical` most
    typical images of each digit are shown. `bfloat16` multiplies matrices in that precision; weights stay float32.
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
    bfloat16: bool = True
    checkpoint_seconds: float = 90.0
    curriculum: tuple[Phase, ...] = field(default=CURRICULUM)


class Trainer:
    """State of a run: the transformer, its moving average, the optimizers and how far it is."""

    def __init__(self, vq: PatchVQ, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.vq, self.recipe, self.folder = vq, recipe, folder
        self.image_tokens = len(vq.codebook)
        self.tokenizer = build_tokenizer(self.image_tokens)
        self.net = build_transformer(self.tokenizer.vocab_size, vq.grid**2)
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        matrices = [weight for name, weight in self.net.named_parameters() if weight.ndim == 2 and "layers." in name]
        chosen = {id(matrix) for matrix in matrices}
        rest = [parameter for parameter in self.net.parameters() if id(parameter) not in chosen]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, lr=recipe.learning_rate),
            torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        )
        self.step = 0
        self.seconds = 0.0
        self.clips = {str(kind.frames): 0 for kind in KINDS}

    @property
    def checkpoint(self) -> Path:
        """The file that holds everything needed to carry on."""
        return self.folder / "transformer.ckpt"

    def save(self) -> None:
        """Writes the checkpoint, replacing the one before."""
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "clips": self.clips,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def resume(self) -> None:
        """Carries on from the checkpoint in the folder."""
        state = torch.load(self.checkpoint, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds, self.clips = int(state["step"]), float(state["seconds"]), dict(state["clips"])

    def share(self) -> float:
        """Part of the run that is done, 0 to 1."""
        done = self.step / self.recipe.max_steps if self.recipe.max_steps else self.seconds / 60 / self.recipe.minutes
        return min(1.0, done)

    def learning_rate(self) -> float:
        """Warm-up, then flat, then a cosine down to zero."""
        falling = max(0.0, (self.share() - self.recipe.flat_until) / (1.0 - self.recipe.flat_until))
        warm = min(1.0, (self.step + 1) / self.recipe.warm_up)
        return self.recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * falling))

    def losses(self, source: ClipSource, batch: Batch) -> torch.Tensor:
        """Cross-entropy over image tokens, per frame `f`, on one random batch."""
        clips = source.batch(batch.size, batch.frames)
        video = self.vq.encode((clips.video * 0.5 + 0.5).permute(0, 2, 3, 4, 1))
        kept = source.generator.random(batch.size) >= self.recipe.prompt_dropout
        prompts = [prompt if keep else "" for prompt, keep in zip(clips.prompts, kept, strict=True)]
        given = lay_out(self.tokenizer, prompts, video)
        with self._low_precision(), Float32Attention():
            logits = self.net(given.tokens, given.position_ids, given.text_mask)
        frames = logits[:, self.tokenizer.text_len :, : self.image_tokens].float()
        found = F.cross_entropy(frames.flatten(0, 1), video.flatten(), reduction="none")
        return found.view(video.shape).mean(dim=(0, 2))

    def train(self, log_path: Path) -> None:
        """Runs to the end of the recipe, writing a checkpoint every few minutes and at the end."""
        torch.manual_seed(self.recipe.seed + self.step)
        source = ClipSource(typical(load_split(), self.recipe.typical), self.recipe.seed + self.step)
        saved = time.monotonic()
        with Log("transformer", log_path) as log:
            while self.share() < 1.0:
                before = time.monotonic()
                phase = next(phase for phase in self.recipe.curriculum if self.share() < phase.until)
                batch = phase.batches[self.step % len(phase.batches)]
                for optimizer, factor in zip(self.optimizers, (self.recipe.matrix_rate, 1.0), strict=True):
                    for group in optimizer.param_groups:
                        group["lr"] = factor * self.learning_rate()
                losses = self.losses(source, batch)
                self.net.zero_grad()
                losses.mean().backward()
                norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
                with self._low_precision():  # Muon's matrix products bear it well
                    for optimizer in self.optimizers:
                        optimizer.step()
                self.step += 1
                self.clips[str(batch.frames)] += batch.size
                self._follow()
                self.seconds += time.monotonic() - before
                log.report(
                    self.share(), step=self.step, first=losses[0].item(), last=losses[-1].item(), norm=float(norm)
                )
                if time.monotonic() - saved > self.recipe.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def _low_precision(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16)

    def _follow(self) -> None:
        decay = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages: list[torch.Tensor] = list(self.average.parameters())
            values: list[torch.Tensor] = list(self.net.parameters())
            torch._foreach_lerp_(averages, values, 1.0 - decay)

    def export(self, folder: Path) -> None:
        """Writes the pipeline's parts, with the averaged weights, as safetensors."""
        self.average.eval().save_pretrained(folder / "transformer")
        self.vq.save_pretrained(folder / "vq")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        for config in folder.glob("*/config.json"):
            values = json.loads(config.read_text(encoding="utf-8"))
            values.pop("_name_or_path", None)  # where the part was loaded from, which means nothing elsewhere
            config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        index = {
            "_class_name": "CogVideoPipeline",
            "transformer": ["f3prune.models", "CogVideo"],
            "vq": ["f3prune.models", "PatchVQ"],
            "tokenizer": ["f3prune.models", "WordTokenizer"],
        }
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
