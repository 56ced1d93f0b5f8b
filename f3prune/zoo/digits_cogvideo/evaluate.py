"""Draws fresh clips with the finished pipeline, has them judged, and writes the model card.

`python -m f3prune.zoo.digits_cogvideo.evaluate --pipeline DIR` writes `DIR/card.json` and `DIR/README.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track

from f3prune.models.cogvideo import CogVideo
from f3prune.models.cogvideo.decoding import Decoding
from f3prune.models.cogvideo.generation import guided
from f3prune.models.cogvideo.sampling import TopKSampler
from f3prune.models.cogvideo.text import WordTokenizer
from f3prune.models.cogvideo.vq import PatchVQ
from f3prune.zoo.digits.evaluate import FRESH_SEEDS, Request, requests, score, write_sheet
from f3prune.zoo.digits.judge import Judge
from f3prune.zoo.digits_cogvideo.card import write_card
from f3prune.zoo.digits_cogvideo.train_vq import judge_real_clips


@dataclass(frozen=True)
class Settings:
    """How to draw tokens: one of the `top_k` likeliest, at `temperature`, away from the empty prompt's logits."""

    temperature: float = 0.9
    top_k: int = 16
    guidance_scale: float = 2.0


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


def draw_clips(parts: Parts, wanted: list[Request], settings: Settings) -> npt.NDArray[np.float32]:
    """Clips `b f h w c` (float32 in [0, 1]), one per request, each from its own seed.

    The clips share a batch but not their random numbers, so a request gives the same clip in any company (but where
    rounding tips a draw).
    """
    tokenizer, shape = parts.tokenizer, parts.transformer.shape
    use_guide = settings.guidance_scale != 1.0
    texts = [tokenizer.encode(request.prompt) for request in wanted]
    texts += [tokenizer.encode("")] * len(wanted) * use_guide
    length = max(map(len, texts))
    text = torch.tensor([[tokenizer.pad] * (length - len(ids)) + ids for ids in texts])
    mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids in texts])
    sampler = TopKSampler(len(parts.vq.codebook), settings.top_k, settings.temperature)
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in wanted]
    nothing = torch.zeros(len(texts), 0, shape.frame_len, dtype=torch.int64)
    frames = []
    with torch.inference_mode():
        decoding = Decoding(parts.transformer, text, mask, nothing, range(shape.frame_num), tokenizer.begin_of_image)
        for _ in range(shape.frame_num):
            decoding.begin_frame()
            tokens = [torch.full((len(wanted),), tokenizer.begin_of_image)]
            for _ in range(shape.frame_len):
                logits = decoding.step(tokens[-1].repeat(1 + use_guide))
                rows = guided(logits, settings.guidance_scale if use_guide else None).split(1)
                drawn = [sampler(row, generator) for row, generator in zip(rows, generators, strict=True)]
                tokens.append(torch.cat(drawn))
            frames.append(torch.stack(tokens[1:], dim=1))
    video: npt.NDArray[np.float32] = parts.vq.decode(torch.stack(frames, dim=1)).numpy()
    return video


def evaluate(
    parts: Parts, judge: Judge, settings: Settings, *, count: int, first_seed: int, batch: int = 20
) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    """Draws and judges `count` clips; returns the scores and the clips `b f h w c` (float32 in [0, 1])."""
    wanted = requests(count, first_seed)
    started = time.monotonic()
    batches = range(0, count, batch)
    videos = np.concatenate(
        [draw_clips(parts, wanted[i : i + batch], settings) for i in track(batches, "drawing clips")]
    )
    seconds = (time.monotonic() - started) / count
    scores = score(wanted, judge.judge(videos))
    return scores | {"first_seed": first_seed, "seconds_per_clip": round(seconds, 3)}, videos


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", type=Path, default=Path(__file__).parent / "pipeline")
    parser.add_argument("--count", type=int, default=200, help="clips to draw")
    parser.add_argument("--temperature", type=float, default=Settings.temperature)
    parser.add_argument("--top-k", type=int, default=Settings.top_k, help="tokens to choose from")
    parser.add_argument("--guidance", type=float, default=Settings.guidance_scale, help="1 for none")
    parser.add_argument("--first-seed", type=int, default=FRESH_SEEDS)
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--sheet", type=Path, help="also write the first clips as one image, a row per clip")
    parser.add_argument("--no-card", action="store_true", help="print the scores only")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    judge = Judge()
    settings = Settings(options.temperature, options.top_k, options.guidance)
    parts = load_parts(options.pipeline)
    scores, videos = evaluate(parts, judge, settings, count=options.count, first_seed=options.first_seed)
    Console().print_json(json.dumps(scores))
    if options.sheet:
        write_sheet(videos[:20], options.sheet)
    if not options.no_card:
        digits, motions = judge_real_clips(judge, parts.transformer.shape.frame_num)
        scores |= {"judge_digit_accuracy_on_real_clips": digits, "judge_motion_accuracy_on_real_clips": motions}
        recommended = {
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "guidance_scale": settings.guidance_scale,
        }
        write_card(options.pipeline, scores, recommended)


if __name__ == "__main__":
    main()
