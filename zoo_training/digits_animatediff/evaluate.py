"""Draws fresh clips with the finished pipeline, has them judged, and writes the model card.

`python -m zoo_training.digits_animatediff.evaluate --pipeline DIR` writes `DIR/card.json` and `DIR/README.md`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from f3prune.zoo import HOME
from f3prune.zoo.digits.dataset import CANVAS
from f3prune.zoo.digits.requests import Request
from zoo_training.digits_animatediff.card import CARD
from zoo_training.evaluation import Evaluation, Settings, Videos


def draw_clips(pipeline: Any, wanted: list[Request], settings: Settings) -> Videos:
    """Clips `b f h w c` (float32 in [0, 1]), one per request, each from its own seed."""
    result = pipeline(
        [request.prompt for request in wanted],
        generator=[request.generator for request in wanted],
        num_frames=pipeline.unet.config.motion_max_seq_length,
        height=CANVAS,
        width=CANVAS,
        output_type="np",
        **settings,
    )
    return np.asarray(result.frames, dtype=np.float32)


EVALUATION = Evaluation(
    folder=HOME / "digits_animatediff" / "pipeline",
    draw=draw_clips,
    settings={"num_inference_steps": 20, "guidance_scale": 3.0},
    write_card=CARD.write,
)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    EVALUATION.main(__doc__, arguments)


if __name__ == "__main__":
    main()
