"""Writes `clip.mp4`, a handwritten digit that crosses the canvas, for trying one-shot tuning.

`python -m zoo_training.digits_image.make_clip`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from f3prune.pipelines.video import write_video
from f3prune.zoo import HOME
from f3prune.zoo.digits.dataset import CANVAS, DIGIT, FRAMES, SPEED, load_split, typical

FILE = HOME / "digits_image" / "clip.mp4"
DIGIT_SHOWN = 7
PROMPT = f"a {DIGIT_SHOWN} moving right"


def draw_clip(digit: int = DIGIT_SHOWN) -> torch.Tensor:
    """Frames `f h w 3` (float32 in [0, 1]) of the most typical image of a digit, going right."""
    split = typical(load_split(), 1)
    image = split.images[split.labels == digit][0]
    frames = torch.zeros(FRAMES, CANVAS, CANVAS)
    top = (CANVAS - DIGIT) // 2
    for number in range(FRAMES):
        left = 1 + SPEED * number
        frames[number, top : top + DIGIT, left : left + DIGIT] = image
    return frames[..., None].expand(-1, -1, -1, 3)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE, help="video to write")
    parser.add_argument("--digit", type=int, choices=range(10), default=DIGIT_SHOWN)
    options = parser.parse_args(arguments)
    write_video(np.asarray(draw_clip(options.digit).numpy(), dtype=np.float32), options.out)


if __name__ == "__main__":
    main()
