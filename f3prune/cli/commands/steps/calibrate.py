"""``f3prune calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.calibration import CALIBRATION, calibrate_options
from f3prune.cli.options.places import MODEL, OUTPUT_RUN
from f3prune.cli.runs import kept, written


@click.command(short_help="Measure attention between frames.")
@MODEL
@OUTPUT_RUN
@CALIBRATION
def calibrate(model: str, run: Path, **values: Any) -> None:
    """Measure how much attention MODEL pays from frame to frame while it generates for some prompts."""
    with written(run) as (directory, reporter):
        from f3prune.steps.calibrate import calibrate as step

        entry, made = step(directory, calibrate_options(model, values), reporter)
    facts = entry.facts
    click.echo(
        f"{directory.path}: {facts['sites']} sites of {facts['family']}, {len(facts['timesteps'])} steps, "
        f"{len(facts['prompts'])} {'seeded inputs' if facts['synthetic'] else 'prompts'}{kept(made)}"
    )
