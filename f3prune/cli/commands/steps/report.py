"""``f3prune report``."""

from __future__ import annotations

from pathlib import Path

import click

from f3prune.cli.options.places import MOVED, RUN
from f3prune.cli.runs import kept, opened


@click.command(short_help="Write the HTML report.")
@RUN
@MOVED
def report(run: Path, model: str | None) -> None:
    """Write report.json and one self-contained report.html from the results in the run."""
    with opened(run, model) as (directory, reporter):
        from f3prune.report.build import report as step

        path, made = step(directory, reporter)
    click.echo(f"{path}{kept(made)}")
