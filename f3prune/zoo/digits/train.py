"""Trains the whole pipeline from nothing: `python -m f3prune.zoo.digits.train --out DIR`.

Stopped runs carry on with `--resume`. `--export-only` writes the pipeline from the latest checkpoint.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from f3prune.zoo.digits.train_denoiser import KINDS, Recipe, Trainer
from f3prune.zoo.digits.train_vae import train_vae
from f3prune.zoo.two_stage import TwoStages, write_first


def _train_vae(options: argparse.Namespace, out: Path) -> Any:
    vae, report = train_vae(options.vae_minutes, options.seed, out / "vae.jsonl", options.vae_steps)
    write_first(vae, asdict(report), out, "vae")
    return vae


def _load_vae(folder: Path) -> Any:
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX.from_pretrained(folder).eval().requires_grad_(False)


def _trainer(vae: Any, options: argparse.Namespace, out: Path) -> Trainer:
    return Trainer(vae, Recipe(options.minutes, options.steps, options.seed), out)


def _summarise(trainer: Trainer, out: Path) -> dict[str, Any]:
    """Clips drawn per number of frames, from the log; a step that was redone after a stop counts once."""
    entries = {}
    log = out / "denoiser.jsonl"
    # A run of a few steps ends before its first line.
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    for line in lines:
        entry = json.loads(line)
        entries[int(entry["step"])] = entry
    drawn = dict.fromkeys((str(kind.frames) for kind in KINDS), 0)
    before = 0
    for step in sorted(entries):
        for frames in drawn:
            drawn[frames] += round((step - before) * entries[step][f"clips_{frames}"])
        before = step
    return {"clips": drawn}


TRAINING = TwoStages(
    first="vae",
    second="denoiser",
    first_is="the autoencoder",
    second_is="the denoiser",
    first_minutes=4.0,
    second_minutes=75.0,
    make_first=_train_vae,
    load_first=_load_vae,
    make_trainer=_trainer,
    summarise=_summarise,
)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training; leaves `DIR/pipeline`, logs and checkpoints."""
    TRAINING.run(TRAINING.parser(__doc__).parse_args(arguments))


if __name__ == "__main__":
    main()
