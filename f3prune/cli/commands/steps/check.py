"""``f3prune check``."""

from __future__ import annotations

from pathlib import Path

import click

from f3prune.cli.options.generation import OFFLOAD
from f3prune.cli.options.places import JSON, MOVED, RUN
from f3prune.cli.options.types import BoundedFloat
from f3prune.cli.runs import opened, write_text


@click.command(short_help="Compare engine, pruned and dense.")
@RUN
@MOVED
@click.option(
    "--reference",
    type=click.Choice(["pruned", "dense"]),
    default="pruned",
    show_default=True,
    help="pruned: compare the engine with the pruned model. dense: also compare the pruned model with the dense one.",
)
@click.option(
    "--max-rel-l2",
    type=BoundedFloat(0.0, meaning="a relative L2 distance"),
    help="Largest relative L2 distance to the reference. [default: rounding of the precision for pruned, none for "
    "dense]",
)
@click.option(
    "--videos/--no-videos",
    default=True,
    show_default=True,
    help="Also let each model generate a video by itself, and compare the videos.",
)
@OFFLOAD
@JSON
def check(
    run: Path,
    model: str | None,
    reference: str,
    max_rel_l2: float | None,
    videos: bool,
    offload: str,
    json_file: Path | None,
) -> None:
    """Compare the engine with PyTorch; exit 1 when a bound is missed.

    Where the engine cannot run for want of a GPU, its graph is compared in ONNX Runtime instead.
    """
    with opened(run, model) as (directory, reporter):
        from f3prune.steps.check import check as step

        report = step(directory, reference, max_rel_l2, reporter, videos, offload)  # type: ignore[arg-type]
    if json_file is not None:
        write_text(json_file, report.to_json())
    from f3prune.cli.tables import show
    from f3prune.cli.tables.parity import coupling_table, parity_table

    show(parity_table(report), *([coupling_table(report)] if report.coupling else []))
    report.require()
    if report.stands_in is None:
        click.echo("check passed")
    else:
        click.echo(f"check passed for the graph, in ONNX Runtime; the engine itself did not run: {report.stands_in}")
