"""Draws fresh clips with the finished pipeline, has them judged, and writes the model card.

`python -m f3prune.zoo.digits.evaluate --pipeline DIR` writes `DIR/card.json` and `DIR/README.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track

from f3prune.zoo.digits.card import write_card
from f3prune.zoo.digits.dataset import DIRECTIONS, prompt_of
from f3prune.zoo.digits.judge import Judge, Verdict, accuracy_on_real_clips

FRESH_SEEDS = 1_000_000
"""First of the seeds that are used for the card and nowhere else."""


@dataclass(frozen=True)
class Request:
    """One clip to draw: what it should show, the prompt that says so, and the seed of its noise."""

    digit: int
    direction: str
    prompt: str
    seed: int


def requests(count: int, first_seed: int) -> list[Request]:
    """`count` requests that go evenly through the 40 pairs of digit and direction, in the wordings of the training."""
    draw = np.random.default_rng(first_seed)
    pairs = [(digit, direction) for direction in DIRECTIONS for digit in range(10)]
    if count < len(pairs):
        pairs = [pairs[i] for i in draw.permutation(len(pairs))]
    chosen = [pairs[i % len(pairs)] for i in range(count)]
    return [Request(d, way, prompt_of(d, way, draw), first_seed + i) for i, (d, way) in enumerate(chosen)]


def draw_clips(pipeline: Any, wanted: list[Request], steps: int, guidance: float) -> npt.NDArray[np.float32]:
    """Clips `b f h w c` (float32 in [0, 1]), one per request, each from its own seed."""
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in wanted]
    result = pipeline(
        [request.prompt for request in wanted],
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        max_sequence_length=pipeline.transformer.config.max_text_seq_length,
        output_type="np",
    )
    return np.asarray(result.frames, dtype=np.float32)


def load_pipeline(folder: Path) -> Any:
    """The pipeline in `folder`, from local files only, with its progress bar off."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def interval(right: int, count: int) -> list[float]:
    """The 95 % Wilson interval of a share."""
    z, share = 1.96, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return [round(middle - half, 4), round(middle + half, 4)]


def score(wanted: list[Request], verdicts: list[Verdict]) -> dict[str, Any]:
    """Shares of right digits and directions, overall and apart."""
    both = list(zip(wanted, verdicts, strict=True))
    digits = [verdict.digit == request.digit for request, verdict in both]
    ways = [verdict.direction == request.direction for request, verdict in both]
    joint = [digit and way for digit, way in zip(digits, ways, strict=True)]

    def share_of(hits: list[bool], keys: list[Any], key: Any) -> float:
        picked = [hit for hit, other in zip(hits, keys, strict=True) if other == key]
        return round(sum(picked) / len(picked), 4) if picked else math.nan

    asked_digits, asked_ways = [r.digit for r in wanted], [r.direction for r in wanted]
    return {
        "pairs": len(wanted),
        "digit_accuracy": round(sum(digits) / len(digits), 4),
        "digit_interval_95": interval(sum(digits), len(digits)),
        "motion_accuracy": round(sum(ways) / len(ways), 4),
        "motion_interval_95": interval(sum(ways), len(ways)),
        "both_accuracy": round(sum(joint) / len(joint), 4),
        "by_digit": {str(d): share_of(digits, asked_digits, d) for d in sorted(set(asked_digits))},
        "by_direction": {way: share_of(ways, asked_ways, way) for way in dict.fromkeys(asked_ways)},
    }


def evaluate(
    folder: Path, judge: Judge, *, count: int, steps: int, guidance: float, first_seed: int, batch: int = 20
) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    """Draws and judges `count` clips; returns the scores and the clips `b f h w c` (float32 in [0, 1])."""
    pipeline = load_pipeline(folder)
    wanted = requests(count, first_seed)
    started = time.monotonic()
    batches = range(0, count, batch)
    videos = np.concatenate(
        [draw_clips(pipeline, wanted[i : i + batch], steps, guidance) for i in track(batches, "drawing clips")]
    )
    seconds = (time.monotonic() - started) / count
    verdicts = judge.judge(videos)
    return score(wanted, verdicts) | {"first_seed": first_seed, "seconds_per_clip": round(seconds, 3)}, videos


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", type=Path, default=Path(__file__).parent / "pipeline")
    parser.add_argument("--count", type=int, default=200, help="clips to draw")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=3.0, help="scale of classifier-free guidance")
    parser.add_argument("--first-seed", type=int, default=FRESH_SEEDS)
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--sheet", type=Path, help="also write the first clips as one image, a row per clip")
    parser.add_argument("--no-card", action="store_true", help="print the scores only")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console()

    judge = Judge()
    scores, videos = evaluate(
        options.pipeline,
        judge,
        count=options.count,
        steps=options.steps,
        guidance=options.guidance,
        first_seed=options.first_seed,
    )
    console.print_json(json.dumps(scores))
    if options.sheet:
        write_sheet(videos[:20], options.sheet)
    if not options.no_card:
        real_digits, real_ways = accuracy_on_real_clips(judge)
        scores |= {"judge_digit_accuracy_on_real_clips": real_digits, "judge_motion_accuracy_on_real_clips": real_ways}
        recommended = {"num_inference_steps": options.steps, "guidance_scale": options.guidance}
        write_card(options.pipeline, scores, recommended)


def write_sheet(videos: npt.NDArray[np.float32], file: Path) -> None:
    """Writes clips `b f h w c` (float in [0, 1]) as one PNG, a clip per row and a frame per column."""
    import imageio.v3 as iio

    clips, frames, height, width, colours = videos.shape
    sheet = videos.transpose(0, 2, 1, 3, 4).reshape(clips * height, frames * width, colours)
    iio.imwrite(file, np.rint(sheet * 255.0).clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
