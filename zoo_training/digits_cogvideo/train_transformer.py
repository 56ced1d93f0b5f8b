"""Trains the transformer on image tokens of clips, single frames first, whole clips later; both channels learn."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from f3prune.models.cogvideo.vq import PatchVQ
from f3prune.zoo.digits.dataset import ClipSource
from zoo_training.digits_cogvideo.architecture import FRAMES, Float32Attention, build_transformer
from zoo_training.digits_cogvideo.sequences import build_tokenizer, lay_out
from zoo_training.training import Batch, Phase, Recipe, Trainer, tidy_configs

KINDS = IMAGES, PAIRS, WHOLE = Batch(1, 48), Batch(2, 24), Batch(FRAMES, 10)
CURRICULUM = (
    Phase(0.12, (IMAGES,)),
    Phase(0.20, (IMAGES, PAIRS)),
    Phase(0.70, (IMAGES, WHOLE, WHOLE)),
    Phase(1.00, (IMAGES, WHOLE, WHOLE, WHOLE)),
)
"""Single frames are cheap and soon teach what the digits look like; how they move takes most of the time."""


class CogVideoTrainer(Trainer):
    """Learns the tokens of an image tokenizer that stays as it is."""

    title = "transformer"
    curriculum = CURRICULUM

    def __init__(self, vq: PatchVQ, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.vq = vq
        self.image_tokens = len(vq.codebook)
        self.tokenizer = build_tokenizer(self.image_tokens)
        super().__init__({"transformer": build_transformer(self.tokenizer.vocab_size, vq.grid**2)}, recipe, folder)

    def is_matrix(self, name: str) -> bool:
        """All matrices of the layers."""
        return "layers." in name

    def loss(self, source: ClipSource, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over image tokens on one random batch."""
        clips = source.batch(batch.size, batch.frames)
        video = self.vq.encode((clips.video * 0.5 + 0.5).permute(0, 2, 3, 4, 1))
        kept = source.generator.random(batch.size) >= self.recipe.prompt_dropout
        prompts = [prompt if keep else "" for prompt, keep in zip(clips.prompts, kept, strict=True)]
        given = lay_out(self.tokenizer, prompts, video)
        with self.low_precision(), Float32Attention():
            logits = self.nets["transformer"](given.tokens, given.position_ids, given.text_mask)
        frames = logits[:, self.tokenizer.text_len :, : self.image_tokens].float()
        return torch.nn.functional.cross_entropy(frames.flatten(0, 1), video.flatten())

    def export(self, folder: Path) -> None:
        """Writes the pipeline's parts, with the averaged weights, as safetensors."""
        self.average["transformer"].eval().save_pretrained(folder / "transformer")  # type: ignore[operator]
        self.vq.save_pretrained(folder / "vq")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        tidy_configs(folder)
        index = {
            "_class_name": "CogVideoPipeline",
            "transformer": ["f3prune.models", "CogVideo"],
            "vq": ["f3prune.models", "PatchVQ"],
            "tokenizer": ["f3prune.models", "WordTokenizer"],
        }
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
