"""``f3prune prune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.judging import JUDGING, judge_options
from f3prune.cli.options.places import MOVED, RUN
from f3prune.cli.options.pruning import PRUNING, check_pruning, prune_config
from f3prune.cli.runs import kept, opened
from f3prune.core.errors import InputError

if TYPE_CHECKING:
    from f3prune.calibration import PruneConfig
    from f3prune.calibration.auto import Choices
    from f3prune.core.progress import Reporter
    from f3prune.core.run_directory import RunDirectory


@click.command(short_help="Choose what goes, and bake the pruning.")
@RUN
@MOVED
@PRUNING
@click.option(
    "--budget",
    metavar="METRIC<=BOUND",
    help="With --alpha auto: the quality to keep, e.g. 'fvd<=+0%' relative to the dense model, or 'psnr>=30'.",
)
@JUDGING
def prune(run: Path, model: str | None, budget: str | None, **values: Any) -> None:
    """Choose what goes by its score, and bake the pruning into the weights.

    With --alpha auto and --budget, bisection over --samples videos finds the largest ratio within the budget.
    """
    names = ("samples", "dataset", "root", "captions", "lpips", "clip", "fvd", "fid")
    judge = {name: values.pop(name) for name in names}
    if (budget is None) != (values["alpha"] != "auto"):
        raise InputError("--alpha auto and --budget belong together: give both, or a pruning ratio alone")
    if budget is not None:
        values["alpha"] = 0.0
    check_pruning(values)
    with opened(run, model) as (directory, reporter):
        from f3prune.steps.prune import prune as step

        config = prune_config(values)
        if budget is not None:
            config = _within_budget(directory, budget, config, judge, reporter)
        entry, made = step(directory, config, reporter)
        choices = _chosen(directory, config, reporter) if config.mode == "auto" else None
        before = directory.require("calibrate").facts["parameters"]
    from f3prune.cli.tables import show
    from f3prune.cli.tables.pruning import choices_tables, describe_counts

    if choices is not None:
        show(*choices_tables(choices))
    if config.refit:
        click.echo(
            f"output projections are refitted on {config.refit} generation{'s' * (config.refit > 1)} of the dense model"
        )
    for stage, (counts, after) in enumerate(zip(entry.facts["counts"], entry.facts["parameters"], strict=True)):
        name = "pruned" if len(entry.facts["counts"]) == 1 else f"pruned/stage-{stage}"
        click.echo(
            f"{directory.path / name}: {describe_counts(counts)}; {before:,} parameters before, {after:,} after"
            f"{kept(made)}"
        )


def _chosen(directory: RunDirectory, config: PruneConfig, reporter: Reporter) -> Choices:
    """What mode auto chose from in this run; measured when it was pruned, and read here."""
    from f3prune.steps._state import RunState
    from f3prune.steps.scores import choices_of

    return choices_of(RunState.of(directory), config, reporter)


def _within_budget(
    directory: RunDirectory, budget: str, config: PruneConfig, judge: dict[str, Any], reporter: Reporter
) -> PruneConfig:
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
