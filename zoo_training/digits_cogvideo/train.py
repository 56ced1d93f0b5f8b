"""Trains the whole pipeline from nothing: `python -m zoo_training.digits_cogvideo.train --out DIR`.

Stopped runs carry on with `--resume`. `--export-only` writes the pipeline from the latest checkpoint.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from f3prune.models.cogvideo.vq import PatchVQ
from f3prune.zoo.digits.judge import Judge
from zoo_training.digits_cogvideo.architecture import FRAMES
from zoo_training.digits_cogvideo.train_transformer import CogVideoTrainer
from zoo_training.digits_cogvideo.train_vq import measure_vq, train_vq
from zoo_training.training import Recipe
from zoo_training.two_stage import TwoStages, write_first


def _train_vq(options: argparse.Namespace, out: Path) -> PatchVQ:
    vq, steps = train_vq(options.vq_minutes, options.seed, out / "vq.jsonl", options.vq_steps)
    write_first(vq, asdict(measure_vq(vq, Judge(), steps, options.seed, FRAMES)), out, "vq")
    return vq


def _load_vq(folder: Path) -> PatchVQ:
    vq: PatchVQ = PatchVQ.from_pretrained(folder).eval().requires_grad_(False)
    return vq


def _trainer(vq: PatchVQ, options: argparse.Namespace, out: Path) -> CogVideoTrainer:
    return CogVideoTrainer(vq, Recipe(options.minutes, options.steps, options.seed, bfloat16=not options.float32), out)


TRAINING = TwoStages(
    first="vq",
    second="transformer",
    first_is="the image tokenizer",
    second_is="the transformer",
    first_minutes=5.0,
    second_minutes=60.0,
    make_first=_train_vq,
    load_first=_load_vq,
    make_trainer=_trainer,
)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training; leaves `DIR/pipeline`, logs and checkpoints."""
    parser = TRAINING.parser(__doc__)
    parser.add_argument("--float32", action="store_true", help="multiply matrices in float32 instead of bfloat16")
    TRAINING.run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
