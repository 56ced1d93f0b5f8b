"""The training command that the zoo's models share: first what turns pixels into codes, then what draws the codes."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console

from zoo_training.training import Recipe


class StageTrainer(Protocol):
    """What the second stage needs to be trained, stopped, carried on and exported."""

    step: int
    seconds: float

    clips: dict[str, int]

    @property
    def checkpoint(self) -> Path:
        """Where training can carry on from."""
        ...

    @property
    def recipe(self) -> Any:
        """What is done; ``typical`` is the number of images per digit."""
        ...

    def resume(self) -> None:
        """Go back to the checkpoint."""
        ...

    def train(self, log: Path) -> None:
        """Train to the end of the recipe, a line of ``log`` at a time."""
        ...

    def export(self, folder: Path) -> None:
        """Write the pipeline."""
        ...


def count_clips(trainer: StageTrainer, out: Path) -> dict[str, Any]:
    """Clips drawn, per number of frames."""
    return {"clips": trainer.clips}


EARLIER = "earlier_training.json"
"""In the folder of a run that trains a pipeline further: how that was trained before."""


def may_go_on(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of a model that can be trained further from an exported pipeline."""
    parser.add_argument("--start-from", type=Path, help="exported pipeline to train further, also with --resume")
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    return parser


def keep_earlier(options: argparse.Namespace, out: Path) -> None:
    """Note how the pipeline of ``--start-from`` was trained, or that there is none."""
    if options.start_from is None:
        (out / EARLIER).unlink(missing_ok=True)
    else:
        (out / EARLIER).write_bytes((options.start_from / "training.json").read_bytes())


def count_all_clips(trainer: Any, out: Path) -> dict[str, Any]:
    """Clips drawn, per number of frames; of a run that went on from another, sums over both."""
    if not (out / EARLIER).exists():
        return count_clips(trainer, out)
    earlier = json.loads((out / EARLIER).read_text(encoding="utf-8"))
    minutes = trainer.seconds / 60
    return {
        "steps": earlier["steps"] + trainer.step,
        "minutes": round(earlier["minutes"] + minutes, 1),
        "clips": dict(sorted((Counter(earlier["clips"]) + Counter(trainer.clips)).items())),
        "continued": {
            "steps": trainer.step,
            "minutes": round(minutes, 1),
            "clips": trainer.clips,
            "learning_rate": trainer.recipe.learning_rate,
            "earlier_note": earlier["note"],
        },
    }


@dataclass(frozen=True)
class TwoStages:
    """One model's training.

    Attributes:
        first, second: short names of the stages, e.g. ``vae`` and ``denoiser``: logs and options are called after them.
        first_is, second_is: the same in words, for ``--help``.
        first_minutes, second_minutes: default training times; ``first_minutes`` is None if the first stage is taken
            from another model of the zoo.
        make_first: ``(options, out) -> model``; trains or takes the first stage, writes ``FIRST/`` and
            ``FIRST_report.json``.
        load_first: ``folder -> model``.
        make_trainer: ``(model, options, out) -> trainer`` of the second stage.
        summarise: ``(trainer, out) -> facts`` of this model's training beyond what all have.
    """

    first: str
    second: str
    first_is: str
    second_is: str
    first_minutes: float | None
    second_minutes: float
    make_first: Callable[[argparse.Namespace, Path], Any]
    load_first: Callable[[Path], Any]
    make_trainer: Callable[[Any, argparse.Namespace, Path], StageTrainer]
    summarise: Callable[[Any, Path], dict[str, Any]] = count_clips

    def parser(self, description: str | None) -> argparse.ArgumentParser:
        """Options of the command."""
        parser = argparse.ArgumentParser(description=description)
        add = parser.add_argument
        add("--out", type=Path, required=True, help="folder for checkpoints, logs and the pipeline")
        if self.first_minutes is not None:
            help_text = f"training time of {self.first_is}"
            add(f"--{self.first}-minutes", type=float, default=self.first_minutes, help=help_text)
            add(f"--{self.first}-steps", type=int, help=f"stop {self.first_is} after this many steps instead")
        add("--minutes", type=float, default=self.second_minutes, help=f"training time of {self.second_is}")
        add("--steps", type=int, help=f"stop {self.second_is} after this many steps instead")
        add("--threads", type=int, default=1, help="processor threads")
        add("--seed", type=int, default=0)
        add("--resume", action="store_true", help="carry on from what is in --out")
        add("--export-only", action="store_true", help="write the pipeline from the checkpoint and stop")
        add("--note", default="", help="a sentence for the model card, on what this run did differently")
        return parser

    def run(self, options: argparse.Namespace) -> None:
        """Train what is not there yet; leaves ``OUT/pipeline`` with ``training.json``, logs and checkpoints."""
        torch.set_num_threads(options.threads)
        out: Path = options.out
        out.mkdir(parents=True, exist_ok=True)
        carry_on = options.resume or options.export_only
        log = out / f"{self.second}.jsonl"
        if not carry_on:
            for stale in (out / f"{self.first}.jsonl", log):
                stale.unlink(missing_ok=True)
        trainer = self.make_trainer(self._first(options, out, carry_on), options, out)
        if carry_on and trainer.checkpoint.exists():
            trainer.resume()
        if not options.export_only:
            trainer.train(log)
        trainer.export(out / "pipeline")
        summary = {
            "seed": options.seed,
            "note": options.note,
            "typical_images_per_digit": trainer.recipe.typical,
            "steps": trainer.step,
            "minutes": round(trainer.seconds / 60, 1),
            **self.summarise(trainer, out),
            self.first: json.loads((out / f"{self.first}_report.json").read_text(encoding="utf-8")),
        }
        (out / "pipeline" / "training.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        Console().print(f"pipeline after {trainer.step} steps, {trainer.seconds / 60:.1f} minutes: {out / 'pipeline'}")

    def _first(self, options: argparse.Namespace, out: Path, carry_on: bool) -> Any:
        if carry_on and (out / f"{self.first}_report.json").exists():
            return self.load_first(out / self.first)
        return self.make_first(options, out)


def write_first(model: Any, report: dict[str, Any], out: Path, name: str) -> None:
    """Keep the first stage: the model in ``NAME/``, then its report, which says that the model is whole."""
    model.save_pretrained(out / name)
    (out / f"{name}_report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def take_image_vae(options: argparse.Namespace, out: Path) -> Any:
    """The trained autoencoder of ``zoo:digits-image``, kept in ``OUT/vae`` with the report of its training."""
    from f3prune import zoo

    vae = load_image_vae(zoo.path("digits-image") / "vae")
    report = zoo.card("digits-image")["training"]["vae"] | {"taken_from": "zoo:digits-image"}
    write_first(vae, report, out, "vae")
    return vae


def load_image_vae(folder: Path) -> Any:
    """An image autoencoder that is not trained any further."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder).eval().requires_grad_(False)


def on_the_image_vae(
    minutes: float, make_trainer: Callable[[Any, argparse.Namespace, Path], StageTrainer]
) -> TwoStages:
    """The training of a denoiser alone, for ``minutes``, on the autoencoder of ``zoo:digits-image``."""
    return TwoStages(
        first="vae",
        second="denoiser",
        first_is="the autoencoder",
        second_is="the denoiser",
        first_minutes=None,
        second_minutes=minutes,
        make_first=take_image_vae,
        load_first=load_image_vae,
        make_trainer=make_trainer,
    )
