"""``f3prune sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.judging import JUDGED_BY, JUDGING, METRICS, judge_options
from f3prune.cli.options.places import MOVED, RUN
from f3prune.cli.options.types import COUNT, Fractions, ModeList, NameList
from f3prune.cli.runs import kept, opened
from f3prune.core import choices


@click.command(short_help="Try many pruning configurations.")
@RUN
@MOVED
@click.option(
    "--alphas",
    type=Fractions("a pruning ratio"),
    default="0.2,0.4,0.6,0.8,1",
    show_default=True,
    help="Pruning ratios to try.",
)
@click.option(
    "--granularities",
    type=NameList(choices.GRANULARITIES),
    default="layer,head",
    show_default=True,
    help="Units to try.",
)
@click.option(
    "--modes",
    type=ModeList(),
    default=(),
    help="Modes to try. [default: local, drop, and static or pooled:2:1, whichever suits the model]",
)
@click.option(
    "--aggregates",
    type=NameList(choices.AGGREGATES),
    default="timesteps",
    show_default=True,
    help="See `f3prune prune --aggregate`.",
)
@click.option(
    "--scores", type=NameList(choices.score_names()), help="Scores to try. [default: that of `f3prune prune`]"
)
@click.option(
    "--stages",
    type=click.IntRange(1),
    multiple=True,
    default=(1,),
    help="Number of ranges of steps to try; may be repeated. [default: 1]",
)
@click.option(
    "--quality",
    type=click.Choice(METRICS),
    default="psnr",
    show_default=True,
    help="Metric of the Pareto front, beside speed.",
)
@click.option("--jobs", type=COUNT, help="Worker processes. [default: one per processor]")
@click.option("--rounds", type=COUNT, default=20, show_default=True, help="Timed calls of every engine.")
@JUDGING
@JUDGED_BY
def sweep(run: Path, model: str | None, **values: Any) -> None:
    """Measure latency and quality of many pruning configurations of a built run.

    Every combination that has a meaning is tried; combinations that prune the same are tried once. Latency is measured
    on engines, in turn with the dense engine, and quality in PyTorch. An interrupted sweep goes on where it was.
    """
    names = ("alphas", "granularities", "modes", "aggregates", "scores", "stages", "quality", "jobs", "rounds")
    own = {name: values.pop(name) for name in names}
    with opened(run, model) as (directory, reporter):
        judge = judge_options(values)
        from f3prune.quality.sweep import SweepOptions
        from f3prune.quality.sweep import sweep as step

        data, made = step(directory, SweepOptions(**own, judge=judge), reporter)
    from f3prune.cli.tables import show
    from f3prune.cli.tables.quality import sweep_table

    show(sweep_table(data))
    click.echo(f"{directory.path / 'sweep.json'}{kept(made)}")
