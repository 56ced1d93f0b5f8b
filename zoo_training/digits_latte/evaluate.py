"""Draws fresh clips with the finished pipeline, has them judged, and writes the model card.

`python -m zoo_training.digits_latte.evaluate --pipeline DIR` writes `DIR/card.json` and `DIR/README.md`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from f3prune.zoo import HOME
from f3prune.zoo.digits.dataset import CANVAS
from f3prune.zoo.digits.requests import Request
from zoo_training.digits_latte.card import CARD
from zoo_training.evaluation import Evaluation, Settings, Videos


def draw_clips(pipeline: Any, wanted: list[Request], settings: Settings) -> Videos:
    """Clips `b f h w c` (float32 in [0, 1]), one per request, each from its own seed.

    One at a time: the pipeline cuts the padding off the text of a single prompt only.
    """
    clips = []
    for request in wanted:
        frames = pipeline(
            request.prompt,
            generator=request.generator,
            video_length=pipeline.transformer.config.video_length,
            height=CANVAS,
            width=CANVAS,
            clean_caption=False,
            output_type="np",
            **settings,
        ).frames
        clips.append(np.asarray(frames, dtype=np.float32)[0])
    return np.stack(clips)


EVALUATION = Evaluation(
    folder=HOME / "digits_latte" / "pipeline",
    draw=draw_clips,
    settings={"num_inference_steps": 16, "guidance_scale": 4.0},
    write_card=CARD.write,
)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    EVALUATION.main(__doc__, arguments)


if __name__ == "__main__":
    main()
