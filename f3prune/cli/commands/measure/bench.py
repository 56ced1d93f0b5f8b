"""``f3prune bench``: the quick measurement of a run, or the contest of every contender."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.generation import OFFLOAD, STEPS
from f3prune.cli.options.places import JSON, MOVED, RUN
from f3prune.cli.options.types import FILE, BoundedFloat, Fractions, Mode, NameList
from f3prune.cli.runs import opened, write_text
from f3prune.core import choices
from f3prune.core.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

CONTENDERS = (
    "pytorch",
    "pytorch-pruned",
    "torch-compile",
    "pyramid-attention-broadcast",
    "faster-cache",
    "first-block-cache",
    "mag-cache",
    "onnxruntime",
    "openvino",
    "engine",
)
"""Kinds of ``f3prune.bench.contenders.registry``, written down because help imports nothing heavy."""

_QUICK_S, _CONTEST_S = 300.0, 600.0


class Kinds(NameList):
    """``all``, or comma-separated kinds of contenders."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse; ``all`` is every kind."""
        return self.known_all() if value == "all" else super().convert(value, param, ctx)

    def known_all(self) -> tuple[str, ...]:
        """Every kind."""
        return tuple(self.known)


@click.command(short_help="Time dense against pruned, or every contender.")
@RUN
@MOVED
@click.option(
    "--contenders",
    type=Kinds(CONTENDERS),
    metavar="all|NAMES",
    help="Compare whole generations of these, quality beside time: all, or some of "
    f"{', '.join(CONTENDERS)}, with commas between.",
)
@click.option(
    "--alphas",
    type=Fractions("a pruning ratio"),
    metavar="A,B,…",
    help="Pruning ratios to compare. [default: 0.25,0.5,0.75,1]",
)
@click.option(
    "--granularity",
    "granularities",
    type=click.Choice(choices.GRANULARITIES),
    multiple=True,
    help="Units to compare; may be repeated. [default: layer and head]",
)
@click.option(
    "--mode",
    "modes",
    type=Mode(),
    multiple=True,
    help="Modes to compare, e.g. pooled:2:1; may be repeated. [default: local, drop, and static or pooled:2:1, "
    "whichever suits the model]",
)
@click.option(
    "--skip",
    "skips",
    type=Fractions("a share of the steps", may_be_none=True),
    metavar="none|A,B,…",
    help="Shares of the denoising steps that engines of f3prune skip; they also run with all steps. [default: "
    "0.1,0.2,0.35,0.5]",
)
@STEPS
@click.option(
    "--rounds", type=click.IntRange(min=3), help="Turns of each contender. [default: 20 calls, 5 generations]"
)
@click.option(
    "--budget",
    type=BoundedFloat(0.0, meaning="a number of seconds"),
    help="Start no further round after this many seconds, but make at least three. [default: 300 for calls, 600 for "
    "generations]",
)
@OFFLOAD
@JSON
@click.option("--plot", type=FILE, help="Draw quality over time: a .png, .svg or .pdf file.")
def bench(
    run: Path,
    model: str | None,
    contenders: tuple[str, ...] | None,
    rounds: int | None,
    budget: float | None,
    offload: str,
    json_file: Path | None,
    plot: Path | None,
    **chosen: Any,
) -> None:
    """Time a denoiser call: dense and pruned, engine and PyTorch, in turn.

    With --contenders, or another option that is only about contenders, whole generations are compared in place of
    calls: every way to run this model, with the same prompt, seed and steps. Graphs and engines that are missing are
    made first and kept in the run.
    """
    if plot is not None and plot.suffix not in {".png", ".svg", ".pdf"}:
        raise InputError(f"--plot {plot} is no picture that can be drawn: give a name that ends in .png, .svg or .pdf")
    chosen = {name: value for name, value in chosen.items() if value is not None and (value or name == "skips")}
    whole = contenders is not None or chosen or plot is not None
    if whole and offload != "none":
        raise InputError(f"--offload {offload} is for the timing of calls, not for contenders: leave it out")
    place = (run, model)
    result = (
        _contest(place, contenders or (), rounds, budget, chosen) if whole else _quick(place, rounds, budget, offload)
    )
    if json_file is not None:
        write_text(json_file, json.dumps(result, indent=1) + "\n")
    if plot is not None:
        from f3prune.bench.quality_plot import save_plot

        save_plot({result["model"]: result}, plot)
    from f3prune.cli.tables import show

    if whole:
        from f3prune.cli.tables.contest import contest_table, verdicts

        show(contest_table(result))
        for line in verdicts(result):
            click.echo(line)
    else:
        from f3prune.cli.tables.speed import speed_table

        show(speed_table(result))


def _quick(place: tuple[Path, str | None], rounds: int | None, budget: float | None, offload: str) -> dict[str, Any]:
    with opened(*place) as (directory, reporter):
        from f3prune.bench.speed import BenchOptions
        from f3prune.bench.speed import bench as step

        options = BenchOptions(rounds=rounds or 20, budget_s=_QUICK_S if budget is None else budget, offload=offload)
        return step(directory, options, reporter)[0]


def _contest(
    place: tuple[Path, str | None],
    kinds: Sequence[str],
    rounds: int | None,
    budget: float | None,
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    with opened(*place) as (directory, reporter):
        from f3prune.bench.contest import ContestEntry, ContestOptions, contest

        options = ContestOptions(
            kinds=tuple(kinds), rounds=rounds or 5, budget_s=_CONTEST_S if budget is None else budget, **chosen
        )

        def watch(entries: Sequence[ContestEntry]) -> None:
            from f3prune.cli.tables.contest import standing

            table: Table = standing(entries)
            reporter.show(table)

        result = contest(directory, options, reporter, watch)
        reporter.show(None)
        return result
