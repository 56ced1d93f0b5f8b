"""Commands that make something: families, calibrate, prune, export, build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from f3prune._cli import options as shared
from f3prune._cli.common import opened, settings_from, written

if TYPE_CHECKING:
    from f3prune.families import SiteKind


@click.command(short_help="List the supported families.")
def families() -> None:
    """List the supported model families and what was verified for each."""
    from f3prune._cli.tables import families_table, show

    show(families_table())


@click.command(short_help="Measure attention between frames.")
@shared.MODEL
@shared.OUTPUT_RUN
@shared.CALIBRATION
def calibrate(
    model: str,
    run: Path,
    prompts: Path | None,
    num_prompts: int | None,
    rows: int | None,
    sites: SiteKind,
    random_weights: bool,
    **values: Any,
) -> None:
    """Measure how much attention MODEL pays from frame to frame, while it generates for some prompts."""
    with written(run) as (directory, reporter):
        from f3prune.steps.calibrate import CalibrateOptions
        from f3prune.steps.calibrate import calibrate as step

        settings = settings_from(values)
        options = CalibrateOptions(model, prompts, num_prompts, settings, rows, random_weights, sites)
        entry, made = step(directory, options, reporter)
    facts = entry.facts
    click.echo(
        f"{directory.path}: {facts['sites']} sites of {facts['family']}, {len(facts['timesteps'])} steps, "
        f"{len(facts['prompts'])} {'seeded inputs' if facts['synthetic'] else 'prompts'}{_kept(made)}"
    )


@click.command(short_help="Choose what goes and bake it in.")
@shared.RUN
@shared.PRUNING
def prune(run: Path, **values: Any) -> None:
    """Choose what goes by its attention score and bake it into the weights."""
    with opened(run) as (directory, reporter):
        from f3prune._cli.common import prune_config
        from f3prune.steps.prune import prune as step

        entry, made = step(directory, prune_config(values), reporter)
        before = directory.require("calibrate").facts["parameters"]
    from f3prune._cli.tables import describe_counts

    for stage, (counts, after) in enumerate(zip(entry.facts["counts"], entry.facts["parameters"], strict=True)):
        name = "pruned" if len(entry.facts["counts"]) == 1 else f"pruned/stage-{stage}"
        click.echo(
            f"{directory.path / name}: {describe_counts(counts)}; {before:,} parameters before, {after:,} after"
            f"{_kept(made)}"
        )


@click.command(short_help="Write the pruned denoiser as ONNX.")
@shared.RUN
@shared.EXPORTING
def export(run: Path, dtype: str, opset: int | None, dynamic: tuple[str, ...] | None) -> None:
    """Write the pruned denoiser as ONNX."""
    with opened(run) as (directory, reporter):
        from f3prune._cli.common import export_config
        from f3prune.steps.export import export as step

        entry, made = step(directory, export_config(dtype, opset, dynamic), reporter=reporter)
    from f3prune._cli.tables import describe_graph

    for graph in entry.facts["graphs"]:
        click.echo(f"{directory.path / 'onnx'}: {dtype}, {describe_graph(graph)}{_kept(made)}")


@click.command(short_help="Build an engine from the graph.")
@shared.RUN
@shared.BACKEND
@shared.CAPABILITIES
def build(run: Path, backend: str, capabilities: tuple[str, ...]) -> None:
    """Build an engine from the ONNX graph."""
    with opened(run) as (directory, reporter):
        from f3prune._cli.common import build_config
        from f3prune.steps.build import build as step

        entry, made = step(directory, build_config(backend, capabilities), reporter=reporter)
    click.echo(f"{directory.path / 'engine'}: {entry.facts['backend']} {entry.facts['backend_version']}{_kept(made)}")


def _kept(made: bool) -> str:
    return "" if made else " (up to date)"


COMMANDS = (families, calibrate, prune, export, build)
