"""``f3prune run``: everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.building import BUILDING, build_config
from f3prune.cli.options.calibration import CALIBRATION, calibrate_options
from f3prune.cli.options.exporting import EXPORTING, export_config
from f3prune.cli.options.places import MODEL, OUTPUT_RUN
from f3prune.cli.options.pruning import PRUNING, check_pruning, prune_config
from f3prune.cli.runs import written


@click.command(short_help="All steps from calibrate to report.")
@MODEL
@OUTPUT_RUN
@PRUNING
@CALIBRATION
@EXPORTING
@BUILDING
@click.option("--prompt", help="Prompt of the demonstration video. [default: the first calibration prompt]")
def run(model: str, run: Path, prompt: str | None, **values: Any) -> None:
    """Calibrate, prune, export, build, generate, check, bench and report. What is up to date is not made again."""
    check_pruning(values)
    with written(run) as (directory, reporter):
        from f3prune.workflow import RunOptions, run_all

        calibration = calibrate_options(model, values)
        options = RunOptions(
            calibration, prune_config(values), export_config(values), build_config(values), prompt=prompt
        )
        summary = run_all(directory, options, reporter)
    from f3prune.cli.tables import show
    from f3prune.cli.tables.run import summary_table

    show(summary_table(summary, directory.path))
