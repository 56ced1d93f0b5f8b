"""Draws fresh images with the finished pipeline, has them judged, and writes the model card.

`python -m f3prune.zoo.digits_image.evaluate --pipeline DIR` writes `DIR/card.json` and `DIR/README.md`.
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

from f3prune.zoo.digits.dataset import load_split
from f3prune.zoo.digits.evaluate import interval, load_pipeline, write_sheet
from f3prune.zoo.digits.judge import Judge, centroid, grey
from f3prune.zoo.digits_image.card import write_card
from f3prune.zoo.digits_image.dataset import OFF_CENTRE, PLACES, ImageSource

FRESH_SEEDS = 2_000_000
"""First of the seeds that are used for the card and nowhere else."""


@dataclass(frozen=True)
class Request:
    """One image to draw: the digit and the place that its prompt asks for (place "" is anywhere), and its seed."""

    digit: int
    place: str
    prompt: str
    seed: int


def requests(count: int, first_seed: int) -> list[Request]:
    """`count` requests that go through all digits, half of them without a place, the others through the places."""
    places = list(PLACES)
    chosen = []
    for number in range(count):
        digit, turn = number % 10, number // 10
        place = "" if turn % 2 == 0 else places[(turn // 2 + digit) % len(places)]
        chosen.append(Request(digit, place, f"a {digit} {place}".strip(), first_seed + number))
    return chosen


def draw_images(pipeline: Any, wanted: list[Request], steps: int, guidance: float) -> npt.NDArray[np.float32]:
    """Images `b h w c` (float32 in [0, 1]), one per request, each from its own seed."""
    result = pipeline(
        [request.prompt for request in wanted],
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(request.seed) for request in wanted],
        output_type="np",
    )
    return np.asarray(result.images, dtype=np.float32)


def is_there(image: npt.NDArray[np.float32], place: str) -> bool:
    """Whether the ink of an image `h w c` lies where the words say, by the bound that training prompts follow."""
    axis, side = PLACES[place]
    frame = grey(image)
    return (centroid(frame)[axis] - (frame.shape[axis] - 1) / 2) * side >= OFF_CENTRE - 1.0


def score(wanted: list[Request], images: npt.NDArray[np.float32], judge: Judge) -> dict[str, Any]:
    """Shares of right digits, overall and one by one, and of right places among those that ask for one."""
    digits = [
        verdict.digit == request.digit for request, verdict in zip(wanted, judge.judge(images[:, None]), strict=True)
    ]
    placed = [is_there(image, request.place) for request, image in zip(wanted, images, strict=True) if request.place]

    def share_of(digit: int) -> float:
        hits = [hit for hit, request in zip(digits, wanted, strict=True) if request.digit == digit]
        return round(sum(hits) / len(hits), 4) if hits else math.nan

    return {
        "pairs": len(wanted),
        "digits_right": sum(digits),
        "digit_accuracy": round(sum(digits) / len(digits), 4),
        "digit_interval_95": interval(sum(digits), len(digits)),
        "places_asked": len(placed),
        "place_interval_95": interval(sum(placed), len(placed)) if placed else [0.0, 1.0],
        "place_accuracy": round(sum(placed) / len(placed), 4) if placed else math.nan,
        "by_digit": {str(digit): share_of(digit) for digit in sorted({request.digit for request in wanted})},
    }


def judge_on_real_images(judge: Judge, count: int = 400, seed: int = 1) -> float:
    """Share of digits that the judge gets right on images of held-out handwriting."""
    images = ImageSource(load_split(held_out=True), seed).batch(count)
    pixels = (images.pixels * 0.5 + 0.5).permute(0, 2, 3, 1).to(torch.float32).numpy()
    verdicts = judge.judge(pixels[:, None])
    return sum(verdict.digit == digit for verdict, digit in zip(verdicts, images.digits, strict=True)) / count


def evaluate(
    folder: Path, judge: Judge, *, count: int, steps: int, guidance: float, first_seed: int, batch: int = 25
) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    """Draws and judges `count` images; returns the scores and the images `b h w c` (float32 in [0, 1])."""
    pipeline = load_pipeline(folder)
    wanted = requests(count, first_seed)
    started = time.monotonic()
    starts = track(range(0, count, batch), "drawing images")
    images = np.concatenate([draw_images(pipeline, wanted[i : i + batch], steps, guidance) for i in starts])
    seconds = (time.monotonic() - started) / count
    return score(wanted, images, judge) | {"first_seed": first_seed, "seconds_per_image": round(seconds, 3)}, images


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", type=Path, default=Path(__file__).parent / "pipeline")
    parser.add_argument("--count", type=int, default=100, help="images to draw")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=3.0, help="scale of classifier-free guidance")
    parser.add_argument("--first-seed", type=int, default=FRESH_SEEDS)
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--sheet", type=Path, help="also write the first images as one picture, ten to a row")
    parser.add_argument("--no-card", action="store_true", help="print the scores only")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    judge = Judge()
    scores, images = evaluate(
        options.pipeline,
        judge,
        count=options.count,
        steps=options.steps,
        guidance=options.guidance,
        first_seed=options.first_seed,
    )
    Console().print_json(json.dumps(scores))
    if options.sheet:
        rows = images[: len(images) // 10 * 10]
        write_sheet(rows.reshape(-1, 10, *images.shape[1:]), options.sheet)
    if not options.no_card:
        scores |= {"judge_digit_accuracy_on_real_images": judge_on_real_images(judge)}
        write_card(
            options.pipeline,
            scores,
            {"num_inference_steps": options.steps, "guidance_scale": options.guidance},
        )


if __name__ == "__main__":
    main()
