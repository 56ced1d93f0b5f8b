"""Trains the whole pipeline from nothing: `python -m zoo_training.digits.train --out DIR`.

Stopped runs carry on with `--resume`. `--export-only` writes the pipeline from the latest checkpoint. `--start-from
PIPELINE` trains the denoiser and the text encoder of an exported pipeline further, on its autoencoder.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo_training.digits.train_denoiser import FLAT_UNTIL, DigitsTrainer
from zoo_training.digits.train_vae import train_vae
from zoo_training.training import Recipe
from zoo_training.two_stage import TwoStages, count_all_clips, keep_earlier, may_go_on, write_first


def _make_vae(options: argparse.Namespace, out: Path) -> Any:
    keep_earlier(options, out)
    if options.start_from:
        earlier = json.loads((options.start_from / "training.json").read_text(encoding="utf-8"))
        vae, report = _load_vae(options.start_from / "vae"), earlier["vae"]
    else:
        vae, measured = train_vae(options.vae_minutes, options.seed, out / "vae.jsonl", options.vae_steps)
        report = asdict(measured)
    write_first(vae, report, out, "vae")
    return vae


def _load_vae(folder: Path) -> Any:
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX.from_pretrained(folder).eval().requires_grad_(False)


def _trainer(vae: Any, options: argparse.Namespace, out: Path) -> DigitsTrainer:
    recipe = Recipe(
        options.minutes,
        options.steps,
        options.seed,
        learning_rate=options.learning_rate,
        flat_until=FLAT_UNTIL,
        bfloat16=options.bfloat16,
    )
    return DigitsTrainer(vae, recipe, out, options.start_from)


TRAINING = TwoStages(
    first="vae",
    second="denoiser",
    first_is="the autoencoder",
    second_is="the denoiser",
    first_minutes=4.0,
    second_minutes=75.0,
    make_first=_make_vae,
    load_first=_load_vae,
    make_trainer=_trainer,
    summarise=count_all_clips,
)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training; leaves `DIR/pipeline`, logs and checkpoints."""
    parser = may_go_on(TRAINING.parser(__doc__))
    parser.add_argument("--bfloat16", action="store_true", help="multiply matrices in bfloat16")
    TRAINING.run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
