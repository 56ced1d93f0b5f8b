"""Commands that judge quality on many videos: evaluate, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli import options as shared
from f3prune.cli.common import judge_options, opened
from f3prune.core import choices
from f3prune.core.errors import InputError


@click.command(short_help="Judge the pruned model on many videos.")
@shared.RUN
@shared.JUDGING
@shared.JUDGED_BY
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the result to this file.")
def evaluate(run: Path, json_file: Path | None, **values: Any) -> None:
    """Generate many videos with the dense and the pruned model and compare them, metric by metric.

    Interrupted, it goes on where it was. Distances (FVD, FID) need real videos: --dataset and --root.
    """
    with opened(run) as (directory, reporter):
        options = judge_options(values)
        from f3prune.quality.evaluate import evaluate as step

        data, made = step(directory, options, reporter)
    from f3prune.cli.quality_tables import evaluation_table
    from f3prune.cli.tables import show

    show(evaluation_table(data))
    if json_file is not None:
        import shutil

        shutil.copyfile(directory.path / "evaluation.json", json_file)
    click.echo(f"{directory.path / 'evaluation.json'}{'' if made else ' (up to date)'}")


@click.command(short_help="Try many pruning configurations.")
@shared.RUN
@click.option(
    "--alphas",
    type=shared.Fractions("a pruning ratio"),
    default="0.2,0.4,0.6,0.8,1",
    show_default=True,
    help="Pruning ratios to try.",
)
@click.option("--granularities", type=shared.NameList(choices.GRANULARITIES), default="layer,head", show_default=True)
@click.option("--modes", type=shared.ModeList(), default="local,drop", show_default=True)
@click.option("--aggregates", type=shared.NameList(choices.AGGREGATES), default="timesteps", show_default=True)
@click.option("--scores", type=shared.NameList(choices.score_names()), help="[default: that of `f3prune prune`]")
@click.option("--stages", type=click.IntRange(1), multiple=True, default=(1,), help="May be repeated. [default: 1]")
@click.option(
    "--quality",
    type=click.Choice(shared.METRICS),
    default="psnr",
    show_default=True,
    help="The metric that the Pareto front sets against speed.",
)
@click.option("--jobs", type=shared.COUNT, help="Worker processes. [default: one per processor]")
@click.option("--rounds", type=shared.COUNT, default=20, show_default=True, help="Timed calls of every engine.")
@shared.JUDGING
@shared.JUDGED_BY
def sweep(run: Path, **values: Any) -> None:
    """Measure latency and quality of many pruning configurations of a built run; goes on where it was interrupted.

    All combinations that have a meaning are tried, those that prune the same once. Latency is measured on engines, all
    in turn with the dense one's; quality in PyTorch.
    """
    names = ("alphas", "granularities", "modes", "aggregates", "scores", "stages", "quality", "jobs", "rounds")
    own = {name: values.pop(name) for name in names}
    if values.pop("runner") == "engine":
        raise InputError("--runner engine has no meaning for a sweep, which judges in PyTorch: leave it out")
    with opened(run) as (directory, reporter):
        judge = judge_options(values)
        from f3prune.quality.sweep import SweepOptions
        from f3prune.quality.sweep import sweep as step

        data, made = step(directory, SweepOptions(**own, judge=judge), reporter)
    from f3prune.cli.quality_tables import sweep_table
    from f3prune.cli.tables import show

    show(sweep_table(data))
    click.echo(f"{directory.path / 'sweep.json'}{'' if made else ' (up to date)'}")


COMMANDS = (evaluate, sweep)
