"""Trains the whole pipeline from nothing: `python -m f3prune.zoo.digits_image.train --out DIR`.

Stopped runs carry on with `--resume`. `--export-only` writes the pipeline from the latest checkpoint.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from f3prune.zoo.digits_image.train_unet import Recipe, Trainer
from f3prune.zoo.digits_image.train_vae import train_vae


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training; leaves `DIR/pipeline`, logs and checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, logs and the pipeline")
    parser.add_argument("--vae-minutes", type=float, default=4.0, help="training time of the autoencoder")
    parser.add_argument("--minutes", type=float, default=31.0, help="training time of the denoiser")
    parser.add_argument("--vae-steps", type=int, help="stop the autoencoder after this many steps instead")
    parser.add_argument("--steps", type=int, help="stop the denoiser after this many steps instead")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="carry on from the checkpoint in --out")
    parser.add_argument("--export-only", action="store_true", help="write the pipeline from the checkpoint and stop")
    parser.add_argument("--note", default="", help="a sentence for the model card, on what this run did differently")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    carry_on = options.resume or options.export_only
    if not carry_on:
        for stale in ("vae.jsonl", "unet.jsonl"):
            (out / stale).unlink(missing_ok=True)

    vae = _autoencoder(options, out, carry_on)
    trainer = Trainer(vae, Recipe(options.minutes, options.steps, options.seed), out)
    if carry_on and trainer.checkpoint.exists():
        trainer.resume()
    if not options.export_only:
        trainer.train(out / "unet.jsonl")
    trainer.export(out / "pipeline")
    summary = {
        "seed": options.seed,
        "note": options.note,
        "typical_images_per_digit": trainer.recipe.typical,
        "steps": trainer.step,
        "batch": trainer.recipe.batch,
        "minutes": round(trainer.seconds / 60, 1),
        "vae": json.loads((out / "vae_report.json").read_text(encoding="utf-8")),
    }
    (out / "pipeline" / "training.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    Console().print(f"pipeline after {trainer.step} steps, {trainer.seconds / 60:.1f} minutes: {out / 'pipeline'}")


def _autoencoder(options: argparse.Namespace, out: Path, carry_on: bool) -> Any:
    folder = out / "vae"
    if carry_on and folder.exists():
        from diffusers import AutoencoderKL

        return AutoencoderKL.from_pretrained(folder).eval().requires_grad_(False)
    vae, report = train_vae(options.vae_minutes, options.seed, out / "vae.jsonl", options.vae_steps)
    vae.save_pretrained(folder)
    (out / "vae_report.json").write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    return vae


if __name__ == "__main__":
    main()
