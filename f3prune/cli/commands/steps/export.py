"""``f3prune export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.building import TARGET
from f3prune.cli.options.exporting import EXPORTING, export_config
from f3prune.cli.options.places import MOVED, RUN
from f3prune.cli.runs import kept, opened


@click.command(short_help="Write the pruned denoiser as ONNX.")
@RUN
@MOVED
@EXPORTING
@TARGET
def export(run: Path, model: str | None, **values: Any) -> None:
    """Write the pruned denoiser as ONNX."""
    with opened(run, model) as (directory, reporter):
        from f3prune.steps.export import export as step

        entry, made = step(directory, export_config(values), reporter=reporter)
    from f3prune.cli.tables.pruning import describe_graph

    for graph in entry.facts["graphs"]:
        click.echo(f"{directory.path / 'onnx'}: {entry.facts['dtype']}, {describe_graph(graph)}{kept(made)}")
