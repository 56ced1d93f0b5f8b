"""Draws fresh clips with the finished pipeline, has them judged, and writes the model card.

`python -m zoo_training.digits.evaluate --pipeline DIR` writes `DIR/card.json` and `DIR/README.md`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from f3prune.zoo import HOME
from f3prune.zoo.digits.requests import Request
from zoo_training.digits.card import CARD
from zoo_training.evaluation import Evaluation, Settings, Videos


def draw_clips(pipeline: Any, wanted: list[Request], settings: Settings) -> Videos:
    """Clips `b f h w c` (float32 in [0, 1]), one per request, each from its own seed."""
    result = pipeline(
        [request.prompt for request in wanted],
        generator=[request.generator for request in wanted],
        max_sequence_length=pipeline.transformer.config.max_text_seq_length,
        output_type="np",
        **settings,
    )
    return np.asarray(result.frames, dtype=np.float32)


EVALUATION = Evaluation(
    folder=HOME / "digits" / "pipeline",
    draw=draw_clips,
    settings={"num_inference_steps": 16, "guidance_scale": 4.0},
    write_card=CARD.write,
)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    EVALUATION.main(__doc__, arguments)


if __name__ == "__main__":
    main()
