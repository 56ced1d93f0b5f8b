"""Trains the pipeline, starting from `zoo:digits-image`: `python -m f3prune.zoo.digits_animatediff.train --out DIR`.

Stopped runs carry on with `--resume`. `--export-only` writes the pipeline from the latest checkpoint. `--start-from
PIPELINE` trains the denoiser and the text encoder of an exported pipeline further.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from f3prune.zoo.digits_animatediff.train_denoiser import AnimateDiffTrainer
from f3prune.zoo.training import Recipe
from f3prune.zoo.two_stage import on_the_image_vae


def _trainer(vae: Any, options: argparse.Namespace, out: Path) -> AnimateDiffTrainer:
    recipe = Recipe(options.minutes, options.steps, options.seed, learning_rate=options.learning_rate)
    return AnimateDiffTrainer(vae, recipe, out, options.start_from)


TRAINING = on_the_image_vae(60.0, _trainer)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training; leaves `DIR/pipeline`, logs and checkpoints."""
    parser = TRAINING.parser(__doc__)
    parser.add_argument("--start-from", type=Path, help="exported pipeline to train further, also with --resume")
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    TRAINING.run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
