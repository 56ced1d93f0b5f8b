"""Trains the pipeline, on the image zoo's autoencoder: `python -m zoo_training.digits_latte.train --out DIR`.

Stopped runs carry on with `--resume`. `--export-only` writes the pipeline from the latest checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoo_training.digits_latte.train_denoiser import LatteTrainer
from zoo_training.training import Recipe
from zoo_training.two_stage import on_the_image_vae


def _trainer(vae: Any, options: argparse.Namespace, out: Path) -> LatteTrainer:
    return LatteTrainer(vae, Recipe(options.minutes, options.steps, options.seed, bfloat16=True), out)


TRAINING = on_the_image_vae(75.0, _trainer)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training; leaves `DIR/pipeline`, logs and checkpoints."""
    TRAINING.run(TRAINING.parser(__doc__).parse_args(arguments))


if __name__ == "__main__":
    main()
