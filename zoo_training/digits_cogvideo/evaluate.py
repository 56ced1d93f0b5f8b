"""Draws fresh clips with the finished pipeline, has them judged, and writes the model card.

`python -m zoo_training.digits_cogvideo.evaluate --pipeline DIR` writes `DIR/card.json` and `DIR/README.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from f3prune.models.cogvideo import CogVideo
from f3prune.models.cogvideo.decoding import Decoding
from f3prune.models.cogvideo.generation import guided
from f3prune.models.cogvideo.sampling import TopKSampler
from f3prune.models.cogvideo.text import WordTokenizer
from f3prune.models.cogvideo.vq import PatchVQ
from f3prune.zoo import HOME
from f3prune.zoo.digits.judge import Judge
from f3prune.zoo.digits.requests import Request
from zoo_training.digits_cogvideo.architecture import FRAMES
from zoo_training.digits_cogvideo.card import write_card
from zoo_training.evaluation import Evaluation, Scores, Settings, Videos, real_scores


@dataclass(frozen=True)
class Parts:
    """The three parts of the pipeline."""

    transformer: CogVideo
    vq: PatchVQ
    tokenizer: WordTokenizer


def load_parts(folder: Path) -> Parts:
    """The pipeline's parts from local files, ready to draw."""
    return Parts(
        CogVideo.from_pretrained(folder / "transformer").eval().requires_grad_(False),
        PatchVQ.from_pretrained(folder / "vq").eval().requires_grad_(False),
        WordTokenizer.from_pretrained(folder / "tokenizer"),
    )


def draw_clips(parts: Parts, wanted: list[Request], settings: Settings) -> Videos:
    """Clips `b f h w c` (float32 in [0, 1]), one per request, each from its own seed.

    The settings are `temperature`, `top_k` (tokens to choose from) and `guidance_scale` (1 for none). The clips
    share a batch but not their random numbers, so a request gives the same clip in any company (but where rounding tips
    a draw).
    """
    tokenizer, shape = parts.tokenizer, parts.transformer.shape
    use_guide = settings["guidance_scale"] != 1.0
    texts = [tokenizer.encode(request.prompt) for request in wanted]
    texts += [tokenizer.encode("")] * len(wanted) * use_guide
    length = max(map(len, texts))
    text = torch.tensor([[tokenizer.pad] * (length - len(ids)) + ids for ids in texts])
    mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids in texts])
    sampler = TopKSampler(len(parts.vq.codebook), settings["top_k"], settings["temperature"])
    generators = [request.generator for request in wanted]
    nothing = torch.zeros(len(texts), 0, shape.frame_len, dtype=torch.int64)
    frames = []
    with torch.inference_mode():
        decoding = Decoding(parts.transformer, text, mask, nothing, range(shape.frame_num), tokenizer.begin_of_image)
        for _ in range(shape.frame_num):
            decoding.begin_frame()
            tokens = [torch.full((len(wanted),), tokenizer.begin_of_image)]
            for _ in range(shape.frame_len):
                logits = decoding.step(tokens[-1].repeat(1 + use_guide))
                rows = guided(logits, settings["guidance_scale"] if use_guide else None).split(1)
                drawn = [sampler(row, generator) for row, generator in zip(rows, generators, strict=True)]
                tokens.append(torch.cat(drawn))
            frames.append(torch.stack(tokens[1:], dim=1))
    video: Videos = parts.vq.decode(torch.stack(frames, dim=1)).numpy()
    return video


def _real_scores(judge: Judge) -> Scores:
    return real_scores(judge, FRAMES)


EVALUATION = Evaluation(
    folder=HOME / "digits_cogvideo" / "pipeline",
    draw=draw_clips,
    settings={"temperature": 0.9, "top_k": 16, "guidance_scale": 2.0},
    write_card=write_card,
    load=load_parts,
    real=_real_scores,
)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    EVALUATION.main(__doc__, arguments)


if __name__ == "__main__":
    main()
