"""Commands that make something: families, calibrate, prune, export, build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli import options as shared
from f3prune.cli.common import opened, settings_from, written
from f3prune.core.errors import InputError

if TYPE_CHECKING:
    from f3prune.calibration import PruneConfig
    from f3prune.core.progress import Reporter
    from f3prune.core.run_directory import RunDirectory
    from f3prune.families import SiteKind


@click.command(short_help="List the supported families.")
def families() -> None:
    """List the supported model families and what was verified for each."""
    from f3prune.cli.tables import families_table, show

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
@click.option(
    "--budget",
    metavar="METRIC<=BOUND",
    help="With --alpha auto: what quality may cost, e.g. 'fvd<=+0%' against the dense model, or 'psnr>=30'.",
)
@shared.JUDGING
def prune(run: Path, budget: str | None, **values: Any) -> None:
    """Choose what goes by its score and bake it into the weights.

    With --alpha auto and --budget, the largest ratio within the budget is found by bisection, on --samples videos.
    """
    names = ("samples", "dataset", "root", "captions", "lpips", "clip", "fvd", "fid")
    judge = {name: values.pop(name) for name in names}
    if (budget is None) != (values["alpha"] != "auto"):
        raise InputError("--alpha auto and --budget belong together: give both, or a pruning ratio alone")
    with opened(run) as (directory, reporter):
        from f3prune.cli.common import prune_config
        from f3prune.steps.prune import prune as step

        if budget is not None:
            config = _within_budget(directory, budget, prune_config({**values, "alpha": 0.0}), judge, reporter)
        else:
            config = prune_config(values)
        entry, made = step(directory, config, reporter)
        choices = chosen(directory, config, reporter) if config.mode == "auto" else None
        before = directory.require("calibrate").facts["parameters"]
    from f3prune.cli.tables import choices_tables, describe_counts, show

    if choices is not None:
        show(*choices_tables(choices))
    for stage, (counts, after) in enumerate(zip(entry.facts["counts"], entry.facts["parameters"], strict=True)):
        name = "pruned" if len(entry.facts["counts"]) == 1 else f"pruned/stage-{stage}"
        click.echo(
            f"{directory.path / name}: {describe_counts(counts)}; {before:,} parameters before, {after:,} after"
            f"{_kept(made)}"
        )


def chosen(directory: RunDirectory, config: PruneConfig, reporter: Reporter) -> dict[str, Any]:
    """What mode auto chose from in this run; measured when it was pruned, and read here."""
    from f3prune.steps._state import RunState
    from f3prune.steps.scores import choices_of

    return choices_of(RunState.of(directory), config, reporter)[1]


def _within_budget(
    directory: RunDirectory, budget: str, config: PruneConfig, judge: dict[str, Any], reporter: Reporter
) -> PruneConfig:
    from f3prune.cli.common import judge_options
    from f3prune.quality.auto_alpha import Budget, Trial, auto_alpha
    from f3prune.steps._state import RunState

    def tell(trial: Trial) -> None:
        against = "" if trial.dense is None else f", dense {trial.dense:.4g}"
        verdict = "within the budget" if trial.within else "over the budget"
        click.echo(f"alpha {trial.alpha:g}: {wanted.metric} {trial.pruned:.4g}{against}: {verdict}")

    wanted = Budget.parse(budget)
    found = auto_alpha(RunState.of(directory), config, wanted, judge_options(judge), reporter, tell)
    click.echo(f"largest ratio within {budget}: alpha {found.alpha:g}")
    return found


@click.command(short_help="Write the pruned denoiser as ONNX.")
@shared.RUN
@shared.EXPORTING
def export(run: Path, dtype: str, opset: int | None, dynamic: tuple[str, ...] | None) -> None:
    """Write the pruned denoiser as ONNX."""
    with opened(run) as (directory, reporter):
        from f3prune.cli.common import export_config
        from f3prune.steps.export import export as step

        entry, made = step(directory, export_config(dtype, opset, dynamic), reporter=reporter)
    from f3prune.cli.tables import describe_graph

    for graph in entry.facts["graphs"]:
        click.echo(f"{directory.path / 'onnx'}: {dtype}, {describe_graph(graph)}{_kept(made)}")


@click.command(short_help="Build an engine from the graph.")
@shared.RUN
@shared.BACKEND
@shared.CAPABILITIES
def build(run: Path, backend: str, capabilities: tuple[str, ...]) -> None:
    """Build an engine from the ONNX graph."""
    with opened(run) as (directory, reporter):
        from f3prune.cli.common import build_config
        from f3prune.steps.build import build as step

        entry, made = step(directory, build_config(backend, capabilities), reporter=reporter)
    click.echo(f"{directory.path / 'engine'}: {entry.facts['backend']} {entry.facts['backend_version']}{_kept(made)}")


def _kept(made: bool) -> str:
    return "" if made else " (up to date)"


COMMANDS = (families, calibrate, prune, export, build)
