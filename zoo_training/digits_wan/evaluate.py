"""Draws clips with `zoo:digits-wan`, has them judged, and says how often they show what their prompts ask for.

``python -m zoo_training.digits_wan.evaluate --pipeline DIR --count 24`` prints the scores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from f3prune.zoo import HOME
from f3prune.zoo.digits.dataset import load_split
from f3prune.zoo.digits_wan.dataset import CANVAS, FRAMES, ClipSource
from f3prune.zoo.digits_wan.judge import Judge
from f3prune.zoo.digits_wan.requests import Request, requests
from zoo_training.digits_wan.architecture import MAX_TOKENS
from zoo_training.evaluation import FRESH_SEEDS, Scores, Videos, interval, load_pipeline

STEPS, GUIDANCE = 24, 4.0
"""Denoising steps and guidance that the model is meant for."""


def draw_clips(pipeline: Any, wanted: list[Request], steps: int = STEPS, guidance: float = GUIDANCE) -> Videos:
    """Clips ``b f h w c`` (float32 in [0, 1]), one per request, each from its own seed."""
    result = pipeline(
        [request.prompt for request in wanted],
        generator=[request.generator for request in wanted],
        height=CANVAS,
        width=CANVAS,
        num_frames=FRAMES,
        num_inference_steps=steps,
        guidance_scale=guidance,
        max_sequence_length=MAX_TOKENS,  # text is not masked: it knows prompts padded to this length
        output_type="np",
    )
    return np.asarray(result.frames, dtype=np.float32)


def score(wanted: list[Request], videos: Videos, judge: Judge) -> Scores:
    """Shares of right digits and motions, over all digits asked for; a clip is right if all of it is."""
    digits: list[bool] = []
    motions: list[bool] = []
    clips: list[bool] = []
    for request, video in zip(wanted, videos, strict=True):
        found = judge(video, [mover.colour for mover in request.movers])
        both = list(zip(found, request.movers, strict=True))
        digits += [verdict.digit_is(mover) for verdict, mover in both]
        motions += [verdict.motion_is(mover) for verdict, mover in both]
        clips.append(all(verdict.digit_is(mover) and verdict.motion_is(mover) for verdict, mover in both))
    return {
        "clips": len(clips),
        "digits": len(digits),
        "digit_accuracy": round(sum(digits) / len(digits), 4),
        "digit_interval_95": interval(sum(digits), len(digits)),
        "motion_accuracy": round(sum(motions) / len(motions), 4),
        "motion_interval_95": interval(sum(motions), len(motions)),
        "clip_accuracy": round(sum(clips) / len(clips), 4),
    }


def real_scores(judge: Judge, count: int = 200, seed: int = 1) -> Scores:
    """What the judge makes of real clips of held-out handwriting, which it has never seen."""
    source = ClipSource(load_split(held_out=True), seed)
    digits: list[bool] = []
    motions: list[bool] = []
    for _ in range(count):
        clip = source.batch(1)
        video = (clip.video[0] * 0.5 + 0.5).permute(1, 2, 3, 0).numpy()
        for verdict, mover in zip(judge(video, [m.colour for m in clip.movers[0]]), clip.movers[0], strict=True):
            digits.append(verdict.digit_is(mover))
            motions.append(verdict.motion_is(mover))
    return {
        "judge_digit_accuracy_on_real_clips": round(sum(digits) / len(digits), 4),
        "judge_motion_accuracy_on_real_clips": round(sum(motions) / len(motions), 4),
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", type=Path, default=HOME / "digits_wan" / "pipeline")
    parser.add_argument("--count", type=int, default=24, help="clips to draw")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--first-seed", type=int, default=FRESH_SEEDS)
    parser.add_argument("--batch", type=int, default=4, help="clips that are drawn together")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    pipeline = load_pipeline(options.pipeline).to(options.device)
    wanted = requests(options.count, options.first_seed)
    videos = [
        draw_clips(pipeline, wanted[start : start + options.batch], options.steps, options.guidance)
        for start in range(0, len(wanted), options.batch)
    ]
    judge = Judge()
    print(json.dumps(score(wanted, np.concatenate(videos), judge) | real_scores(judge), indent=1))


if __name__ == "__main__":
    main()
