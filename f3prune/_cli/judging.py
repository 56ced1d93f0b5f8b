"""Commands that judge quality on many videos: evaluate, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune._cli import options as shared
from f3prune._cli.common import opened
from f3prune.errors import InputError

DATASETS = ("ucf101", "captions")
RUNNERS = ("engine", "torch")

JUDGING = shared.stack(
    click.option("--samples", type=shared.COUNT, default=64, show_default=True, help="Videos of every variant."),
    click.option("--seed", type=click.IntRange(0, shared.MAX_SEED), help="Of the first sample. [default: the run's]"),
    click.option(
        "--prompts", type=click.Path(path_type=Path), help="A .txt or .jsonl file. [default: the model's own]"
    ),
    click.option("--dataset", type=click.Choice(DATASETS), help="Real videos: class folders, or a caption file."),
    click.option("--root", type=click.Path(path_type=Path), help="Directory of the dataset."),
    click.option("--captions", type=click.Path(path_type=Path), help="Caption file of --dataset captions."),
    click.option(
        "--metrics",
        type=shared.NameList(shared.METRICS),
        help=f"Some of {','.join(shared.METRICS)}. [default: all that can be measured with what was given]",
    ),
    click.option("--lpips", type=click.Path(path_type=Path), help="AlexNet weights or a TorchScript LPIPS."),
    click.option("--clip", type=click.Path(path_type=Path), help="Directory of a CLIP model, for clipsim."),
    click.option("--fvd", type=click.Path(path_type=Path), help="TorchScript video network (I3D), for FVD."),
    click.option("--fid", type=click.Path(path_type=Path), help="TorchScript image network (Inception), for FID."),
    click.option("--runner", type=click.Choice(RUNNERS), help="[default: the engine if one is built, else PyTorch]"),
    click.option("--resamples", type=click.IntRange(100), default=1000, show_default=True, help="Of the bootstrap."),
)


def judge_options(values: dict[str, Any]) -> Any:
    """The judging options of a command.

    Raises:
        InputError: a file that was named does not exist, or options that do not fit together.
    """
    for name in ("root", "captions", "lpips", "clip", "fvd", "fid"):
        path = values.get(name)
        if path is not None and not path.exists():
            raise InputError(f"--{name} {path} does not exist: give a path that does")
    from f3prune.steps.quality.judging import JudgeOptions

    return JudgeOptions(**values)


@click.command(short_help="Judge the pruned model on many videos.")
@shared.RUN
@JUDGING
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the result to this file.")
def evaluate(run: Path, json_file: Path | None, **values: Any) -> None:
    """Generate many videos with the dense and the pruned model and compare them, metric by metric.

    Interrupted, it goes on where it was. Distances (FVD, FID) need real videos: --dataset and --root.
    """
    with opened(run) as (directory, reporter):
        options = judge_options(values)
        from f3prune.steps.quality.evaluate import evaluate as step

        data, made = step(directory, options, reporter)
    from f3prune._cli.quality_tables import evaluation_table
    from f3prune._cli.tables import show

    show(evaluation_table(data))
    if json_file is not None:
        import shutil

        shutil.copyfile(directory.path / "evaluation.json", json_file)
    click.echo(f"{directory.path / 'evaluation.json'}{'' if made else ' (up to date)'}")


COMMANDS = (evaluate,)
