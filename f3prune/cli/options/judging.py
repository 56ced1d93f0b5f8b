"""On which videos quality is measured, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.types import COUNT, MAX_SEED, PLACE, NameList, stack
from f3prune.core.errors import InputError

if TYPE_CHECKING:
    from f3prune.quality.judging import JudgeOptions

METRICS = (
    "psnr",
    "ssim",
    "lpips",
    "flicker",
    "warping",
    "dynamic",
    "clipsim",
    "prompt_digit",
    "prompt_motion",
    "fvd",
    "fid",
)

DATASETS = ("ucf101", "captions")

RUNNERS = ("engine", "torch")

JUDGING = stack(
    click.option("--samples", type=COUNT, default=64, show_default=True, help="Videos that each model generates."),
    click.option(
        "--dataset",
        type=click.Choice(DATASETS),
        help="Real videos: folders of classes, or a folder with a caption file.",
    ),
    click.option("--root", type=PLACE, help="Directory of the dataset."),
    click.option("--captions", type=PLACE, help="Caption file of --dataset captions."),
    click.option("--lpips", type=PLACE, help="AlexNet weights or a TorchScript LPIPS."),
    click.option("--clip", type=PLACE, help="Directory of a CLIP model, for clipsim."),
    click.option("--fvd", type=PLACE, help="TorchScript video network (I3D), for FVD."),
    click.option("--fid", type=PLACE, help="TorchScript image network (Inception), for FID."),
)

RUNNER = click.option(
    "--runner",
    type=click.Choice(RUNNERS),
    help="What runs the models. [default: the engine if one is built, else PyTorch]",
)

JUDGED_BY = stack(
    click.option("--seed", type=click.IntRange(0, MAX_SEED), help="Seed of the first sample. [default: the run's]"),
    click.option(
        "--prompts",
        type=PLACE,
        help="A .txt file, one prompt per line, or a .jsonl file. [default: the model's own list]",
    ),
    click.option(
        "--metrics",
        type=NameList(METRICS),
        help=f"Some of {', '.join(METRICS)}, with commas between. [default: all that the given networks and videos "
        "allow]",
    ),
    click.option(
        "--resamples", type=click.IntRange(100), default=1000, show_default=True, help="Resamples of the bootstrap."
    ),
)


def judge_options(values: Mapping[str, Any]) -> JudgeOptions:
    """The judging options of a command.

    Raises:
        InputError: a file that was named does not exist, or options that do not fit together.
    """
    for name in ("root", "captions", "lpips", "clip", "fvd", "fid"):
        path = values.get(name)
        if path is not None and not path.exists():
            raise InputError(f"--{name} {path} does not exist: give a path that does")
    from f3prune.quality.judging import JudgeOptions

    return JudgeOptions(**values)
