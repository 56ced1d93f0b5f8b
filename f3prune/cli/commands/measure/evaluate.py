"""``f3prune evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.judging import JUDGED_BY, JUDGING, RUNNER, judge_options
from f3prune.cli.options.places import JSON, MOVED, RUN
from f3prune.cli.runs import kept, opened, write_text


@click.command(short_help="Judge the pruned model on many videos.")
@RUN
@MOVED
@JUDGING
@JUDGED_BY
@RUNNER
@JSON
def evaluate(run: Path, model: str | None, json_file: Path | None, **values: Any) -> None:
    """Generate many videos with the dense and the pruned model and compare them, metric by metric.

    An interrupted evaluation goes on where it was. FVD and FID compare with real videos: give --dataset and --root,
    except for the zoo's models, which have real clips of their own.
    """
    with opened(run, model) as (directory, reporter):
        options = judge_options(values)
        from f3prune.quality.evaluate import evaluate as step

        data, made = step(directory, options, reporter)
    from f3prune.cli.tables import show
    from f3prune.cli.tables.quality import evaluation_table

    show(evaluation_table(data))
    if json_file is not None:
        write_text(json_file, (directory.path / "evaluation.json").read_text(encoding="utf-8"))
    click.echo(f"{directory.path / 'evaluation.json'}{kept(made)}")
