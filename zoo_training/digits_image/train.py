"""Trains the whole pipeline from nothing: `python -m zoo_training.digits_image.train --out DIR`.

Stopped runs carry on with `--resume`. `--export-only` writes the pipeline from the latest checkpoint.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo_training.digits_image.train_unet import FLAT_UNTIL, IMAGES, ImageTrainer
from zoo_training.digits_image.train_vae import train_vae
from zoo_training.training import Recipe
from zoo_training.two_stage import TwoStages, load_image_vae, write_first


def _train_vae(options: argparse.Namespace, out: Path) -> Any:
    vae, report = train_vae(options.vae_minutes, options.seed, out / "vae.jsonl", options.vae_steps)
    write_first(vae, asdict(report), out, "vae")
    return vae


def _trainer(vae: Any, options: argparse.Namespace, out: Path) -> ImageTrainer:
    return ImageTrainer(vae, Recipe(options.minutes, options.steps, options.seed, flat_until=FLAT_UNTIL), out)


def _summarise(trainer: ImageTrainer, out: Path) -> dict[str, Any]:
    return {"batch": IMAGES.size}


TRAINING = TwoStages(
    first="vae",
    second="unet",
    first_is="the autoencoder",
    second_is="the denoiser",
    first_minutes=4.0,
    second_minutes=31.0,
    make_first=_train_vae,
    load_first=load_image_vae,
    make_trainer=_trainer,
    summarise=_summarise,
)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training; leaves `DIR/pipeline`, logs and checkpoints."""
    TRAINING.run(TRAINING.parser(__doc__).parse_args(arguments))


if __name__ == "__main__":
    main()
