"""Trains the pipeline, starting from `zoo:digits-image`: `python -m zoo_training.digits_animatediff.train --out DIR`.

Stopped runs carry on with `--resume`. `--export-only` writes the pipeline from the latest checkpoint. `--start-from
PIPELINE` trains the denoiser and the text encoder of an exported pipeline further.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo_training.digits_animatediff.train_denoiser import AnimateDiffTrainer
from zoo_training.training import Recipe
from zoo_training.two_stage import count_all_clips, keep_earlier, may_go_on, on_the_image_vae, take_image_vae


def _vae(options: argparse.Namespace, out: Path) -> Any:
    keep_earlier(options, out)
    return take_image_vae(options, out)


def _trainer(vae: Any, options: argparse.Namespace, out: Path) -> AnimateDiffTrainer:
    recipe = Recipe(options.minutes, options.steps, options.seed, learning_rate=options.learning_rate)
    return AnimateDiffTrainer(vae, recipe, out, options.start_from)


TRAINING = replace(on_the_image_vae(60.0, _trainer), make_first=_vae, summarise=count_all_clips)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training; leaves `DIR/pipeline`, logs and checkpoints."""
    TRAINING.run(may_go_on(TRAINING.parser(__doc__)).parse_args(arguments))


if __name__ == "__main__":
    main()
