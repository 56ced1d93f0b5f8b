"""The evaluation that the zoo's models share: draw fresh clips, have them judged, write the model card."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track

from f3prune.zoo.digits.dataset import FRAMES, ClipSource, load_split
from f3prune.zoo.digits.judge import Judge
from f3prune.zoo.digits.requests import Request, requests

FRESH_SEEDS = 1_000_000
"""First of the seeds that are used for the card and nowhere else."""
OPTIONS = {"num_inference_steps": "steps", "guidance_scale": "guidance"}
"""Settings whose command-line option has a shorter name."""

Videos = npt.NDArray[np.float32]
Scores = dict[str, Any]
Settings = dict[str, Any]


def load_pipeline(folder: Path) -> Any:
    """The diffusers pipeline in `folder`, from local files only, with its progress bar off."""
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


def shares(hits: list[bool], keys: list[Any]) -> dict[str, float]:
    """The share of hits for each key, in the order of the keys' first appearance."""
    by_key: dict[Any, list[bool]] = {}
    for hit, key in zip(hits, keys, strict=True):
        by_key.setdefault(key, []).append(hit)
    return {str(key): round(sum(found) / len(found), 4) for key, found in by_key.items()}


def score(wanted: list[Request], videos: Videos, judge: Judge) -> Scores:
    """Shares of right digits and directions of clips `b f h w c` (float32 in [0, 1]), overall and apart."""
    both = list(zip(wanted, judge.judge(videos), strict=True))
    digits = [verdict.digit == request.digit for request, verdict in both]
    ways = [verdict.direction == request.direction for request, verdict in both]
    joint = [digit and way for digit, way in zip(digits, ways, strict=True)]
    return {
        "pairs": len(wanted),
        "digit_accuracy": round(sum(digits) / len(digits), 4),
        "digit_interval_95": interval(sum(digits), len(digits)),
        "motion_accuracy": round(sum(ways) / len(ways), 4),
        "motion_interval_95": interval(sum(ways), len(ways)),
        "both_accuracy": round(sum(joint) / len(joint), 4),
        "by_digit": dict(sorted(shares(digits, [request.digit for request in wanted]).items())),
        "by_direction": shares(ways, [request.direction for request in wanted]),
    }


def real_scores(judge: Judge, frames: int = FRAMES, count: int = 400, seed: int = 1) -> Scores:
    """What the judge makes of real clips of held-out digits, which it has never seen."""
    clips = ClipSource(load_split(held_out=True), seed).batch(count, frames)
    video = (clips.video * 0.5 + 0.5).permute(0, 2, 3, 4, 1).to(torch.float32).numpy()
    verdicts = judge.judge(video)
    digits = sum(v.digit == digit for v, digit in zip(verdicts, clips.digits, strict=True))
    directions = sum(v.direction == way for v, way in zip(verdicts, clips.directions, strict=True))
    return {
        "judge_digit_accuracy_on_real_clips": digits / count,
        "judge_motion_accuracy_on_real_clips": directions / count,
    }


def write_sheet(videos: Videos, file: Path) -> None:
    """Writes clips `b f h w c` (float in [0, 1]) as one PNG, a clip per row and a frame per column."""
    import imageio.v3 as iio

    clips, frames, height, width, colours = videos.shape
    sheet = videos.transpose(0, 2, 1, 3, 4).reshape(clips * height, frames * width, colours)
    iio.imwrite(file, np.rint(sheet * 255.0).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Evaluation:
    """How one model of the zoo is evaluated.

    Attributes:
        folder: the finished pipeline, where the command looks unless told otherwise.
        draw: `(pipeline, requests, settings) -> clips b f h w c` (float32 in [0, 1]), one per request, from its seed.
        settings: the settings of `draw` by name, with the values that they have unless given on the command line.
        write_card: `(folder, scores, settings, note)`; writes `card.json` and `README.md`.
        batch: requests that are drawn together.
        load: `folder -> pipeline`.
        ask: `(count, first_seed) -> requests`.
        score: `(requests, clips, judge) -> scores`.
        real: `judge -> scores` on real clips, which the card holds too.
        first_seed: seed of the first request.
    """

    folder: Path
    draw: Callable[[Any, list[Any], Settings], Videos]
    settings: Mapping[str, float]
    write_card: Callable[[Path, Scores, Settings, str], None]
    batch: int = 20
    load: Callable[[Path], Any] = load_pipeline
    ask: Callable[[int, int], list[Any]] = requests
    score: Callable[[list[Any], Videos, Judge], Scores] = score
    real: Callable[[Judge], Scores] = real_scores
    first_seed: int = FRESH_SEEDS

    def evaluate(
        self, folder: Path, judge: Judge, settings: Settings, count: int, first_seed: int
    ) -> tuple[Scores, Videos]:
        """Draws and judges `count` clips; returns the scores and the clips `b f h w c` (float32 in [0, 1])."""
        pipeline = self.load(folder)
        wanted = self.ask(count, first_seed)
        started = time.monotonic()
        starts = track(range(0, count, self.batch), "drawing clips")
        videos = np.concatenate([self.draw(pipeline, wanted[i : i + self.batch], settings) for i in starts])
        seconds = (time.monotonic() - started) / count
        scores = self.score(wanted, videos, judge)
        return scores | {"first_seed": first_seed, "seconds_per_clip": round(seconds, 3)}, videos

    def main(self, description: str | None, arguments: list[str] | None) -> None:
        """Command line of the evaluation."""
        parser = argparse.ArgumentParser(description=description)
        add = parser.add_argument
        add("--pipeline", type=Path, default=self.folder)
        add("--count", type=int, default=400, help="clips to draw")
        for name, value in self.settings.items():
            option = OPTIONS.get(name, name).replace("_", "-")
            add(f"--{option}", dest=name, type=type(value), default=value, help=f"{name} of the pipeline")
        add("--first-seed", type=int, default=self.first_seed)
        add("--threads", type=int, default=1, help="processor threads")
        add("--sheet", type=Path, help="also write the first clips as one image, a row per clip")
        add("--no-card", action="store_true", help="print the scores only")
        add("--note", default="", help="a sentence for the card: how far it came and why, if an aim is not met")
        options = parser.parse_args(arguments)
        torch.set_num_threads(options.threads)

        judge = Judge()
        settings = {name: getattr(options, name) for name in self.settings}
        scores, videos = self.evaluate(options.pipeline, judge, settings, options.count, options.first_seed)
        Console().print_json(json.dumps(scores))
        if options.sheet:
            write_sheet(videos[:20], options.sheet)
        if not options.no_card:
            self.write_card(options.pipeline, scores | self.real(judge), settings, options.note)
