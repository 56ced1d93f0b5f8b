"""Draws fresh images with the finished pipeline, has them judged, and writes the model card.

`python -m zoo_training.digits_image.evaluate --pipeline DIR` writes `DIR/card.json` and `DIR/README.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from f3prune.zoo import HOME
from f3prune.zoo.digits.dataset import load_split
from f3prune.zoo.digits.judge import Judge, centroid, grey
from zoo_training.digits_image.card import write_card
from zoo_training.digits_image.dataset import OFF_CENTRE, PLACES, ImageSource
from zoo_training.evaluation import Evaluation, Scores, Settings, Videos, interval, shares

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


def draw_images(pipeline: Any, wanted: list[Request], settings: Settings) -> Videos:
    """Images as clips of one frame, `b 1 h w c` (float32 in [0, 1]), one per request, each from its own seed."""
    result = pipeline(
        [request.prompt for request in wanted],
        generator=[torch.Generator("cpu").manual_seed(request.seed) for request in wanted],
        output_type="np",
        **settings,
    )
    return np.asarray(result.images, dtype=np.float32)[:, None]


def is_there(image: npt.NDArray[np.float32], place: str) -> bool:
    """Whether the ink of an image `h w c` lies where the words say, by the bound that training prompts follow."""
    axis, side = PLACES[place]
    frame = grey(image)
    return (centroid(frame)[axis] - (frame.shape[axis] - 1) / 2) * side >= OFF_CENTRE - 1.0


def score(wanted: list[Request], videos: Videos, judge: Judge) -> Scores:
    """Shares of right digits, overall and one by one, and of right places among those that ask for one.

    `videos` are images as clips of one frame, `b 1 h w c` (float32 in [0, 1]).
    """
    digits = [verdict.digit == request.digit for request, verdict in zip(wanted, judge.judge(videos), strict=True)]
    placed = [is_there(clip[0], request.place) for request, clip in zip(wanted, videos, strict=True) if request.place]
    return {
        "pairs": len(wanted),
        "digits_right": sum(digits),
        "digit_accuracy": round(sum(digits) / len(digits), 4),
        "digit_interval_95": interval(sum(digits), len(digits)),
        "places_asked": len(placed),
        "place_interval_95": interval(sum(placed), len(placed)) if placed else [0.0, 1.0],
        "place_accuracy": round(sum(placed) / len(placed), 4) if placed else math.nan,
        "by_digit": dict(sorted(shares(digits, [request.digit for request in wanted]).items())),
    }


def judge_on_real_images(judge: Judge, count: int = 400, seed: int = 1) -> Scores:
    """Share of digits that the judge gets right on images of held-out handwriting."""
    images = ImageSource(load_split(held_out=True), seed).batch(count)
    pixels = (images.pixels * 0.5 + 0.5).permute(0, 2, 3, 1).to(torch.float32).numpy()
    verdicts = judge.judge(pixels[:, None])
    right = sum(verdict.digit == digit for verdict, digit in zip(verdicts, images.digits, strict=True))
    return {"judge_digit_accuracy_on_real_images": right / count}


EVALUATION = Evaluation(
    folder=HOME / "digits_image" / "pipeline",
    draw=draw_images,
    settings={"num_inference_steps": 20, "guidance_scale": 3.0},
    write_card=write_card,
    batch=25,
    ask=requests,
    score=score,
    real=judge_on_real_images,
    first_seed=FRESH_SEEDS,
)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    EVALUATION.main(__doc__, arguments)


if __name__ == "__main__":
    main()
