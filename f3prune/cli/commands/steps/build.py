"""``f3prune build``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.building import BUILDING, build_config
from f3prune.cli.options.places import RUN
from f3prune.cli.runs import kept, opened


@click.command(short_help="Build an engine from the graph.")
@RUN
@BUILDING
@click.option("--inspect", is_flag=True, help="Name every attention that the engine does not compute in one kernel.")
def build(run: Path, inspect: bool, **values: Any) -> None:
    """Build an engine from the ONNX graph."""
    with opened(run) as (directory, reporter):
        from f3prune.steps.build import build as step

        entry, made = step(directory, build_config(values), reporter=reporter)
    click.echo(f"{directory.path / 'engine'}: {entry.facts['backend']} {entry.facts['backend_version']}{kept(made)}")
    from f3prune.cli.tables.build import attention_lines

    for line in attention_lines(entry, inspect):
        click.echo(line)
