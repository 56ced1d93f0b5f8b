"""Trains the whole pipeline from nothing: `python -m f3prune.zoo.digits_cogvideo.train --out DIR`.

Stopped runs carry on with `--resume`. `--export-only` writes the pipeline from the latest checkpoint.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from f3prune.models.cogvideo.vq import PatchVQ
from f3prune.zoo.digits.judge import Judge
from f3prune.zoo.digits_cogvideo.architecture import FRAMES
from f3prune.zoo.digits_cogvideo.train_transformer import Recipe, Trainer
from f3prune.zoo.digits_cogvideo.train_vq import measure_vq, train_vq


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training; leaves `DIR/pipeline`, logs and checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, logs and the pipeline")
    parser.add_argument("--vq-minutes", type=float, default=5.0, help="training time of the image tokenizer")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time of the transformer")
    parser.add_argument("--vq-steps", type=int, help="stop the image tokenizer after this many steps instead")
    parser.add_argument("--steps", type=int, help="stop the transformer after this many steps instead")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true", help="multiply matrices in float32 instead of bfloat16")
    parser.add_argument("--resume", action="store_true", help="carry on from what is in --out")
    parser.add_argument("--export-only", action="store_true", help="write the pipeline from the checkpoint and stop")
    parser.add_argument("--note", default="", help="a sentence for the model card, on what this run did differently")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    carry_on = options.resume or options.export_only
    if not carry_on:
        for stale in ("vq.jsonl", "transformer.jsonl"):
            (out / stale).unlink(missing_ok=True)

    vq = _image_tokenizer(options, out, carry_on)
    recipe = Recipe(options.minutes, options.steps, options.seed, bfloat16=not options.float32)
    trainer = Trainer(vq, recipe, out)
    if carry_on and trainer.checkpoint.exists():
        trainer.resume()
    if not options.export_only:
        trainer.train(out / "transformer.jsonl")
    trainer.export(out / "pipeline")
    summary = {
        "seed": options.seed,
        "note": options.note,
        "typical_images_per_digit": recipe.typical,
        "steps": trainer.step,
        "minutes": round(trainer.seconds / 60, 1),
        "clips": trainer.clips,
        "vq": json.loads((out / "vq_report.json").read_text(encoding="utf-8")),
    }
    (out / "pipeline" / "training.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    Console().print(f"pipeline after {trainer.step} steps, {trainer.seconds / 60:.1f} minutes: {out / 'pipeline'}")


def _image_tokenizer(options: argparse.Namespace, out: Path, carry_on: bool) -> PatchVQ:
    folder, report = out / "vq", out / "vq_report.json"
    if carry_on and report.exists():
        vq: PatchVQ = PatchVQ.from_pretrained(folder).eval().requires_grad_(False)
        return vq
    vq, steps = train_vq(options.vq_minutes, options.seed, out / "vq.jsonl", options.vq_steps)
    vq.save_pretrained(folder)
    measured = measure_vq(vq, Judge(), steps, options.seed, FRAMES)
    report.write_text(json.dumps(asdict(measured), indent=1) + "\n", encoding="utf-8")
    return vq


if __name__ == "__main__":
    main()
