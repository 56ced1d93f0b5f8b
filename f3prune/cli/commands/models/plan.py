"""``f3prune plan``: what pruning can give, before anything is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.types import COUNT, FILE, BoundedFloat, Mode
from f3prune.cli.runs import write_text
from f3prune.core import choices


@click.command(short_help="What pruning can give, before anything is run.")
@click.argument("model", metavar="MODEL")
@click.option(
    "--alpha",
    "alphas",
    type=BoundedFloat(0.0, 1.0, "a pruning ratio"),
    multiple=True,
    default=(0.25, 0.5, 1.0),
    show_default=True,
    help="Pruning ratio; may be repeated.",
)
@click.option(
    "--granularity", type=click.Choice(("layer", "head")), default="layer", show_default=True, help="What a unit is."
)
@click.option(
    "--mode",
    type=Mode(),
    help="What takes a pruned unit's place. [default: static for temporal attention, local for joint]",
)
@click.option(
    "--dtype", type=click.Choice(choices.DTYPES), default="fp16", show_default=True, help="Precision of the graph."
)
@click.option("--num-frames", "frames", type=COUNT, help="Latent frames. [default: the model's own]")
@click.option("--height", type=COUNT, help="Latent height. [default: the model's own]")
@click.option("--width", type=COUNT, help="Latent width. [default: the model's own]")
@click.option(
    "--batch", type=COUNT, help="Batch of one denoiser call. [default: 2, or what the published pipeline uses]"
)
@click.option("--json", "json_file", type=FILE, help="Also write the numbers to this file.")
def plan(model: str, json_file: Path | None, **values: Any) -> None:
    """Count what MODEL computes with and without pruning, and estimate what export and build will take.

    The configuration of MODEL is enough; no weights are needed. published:NAME is a model of a published size.
    """
    import json

    import psutil

    from f3prune.bench.costs.machine import measure_machine
    from f3prune.bench.costs.plan import PlanOptions, does_not_fit
    from f3prune.bench.costs.plan import plan as look_ahead
    from f3prune.cli.tables import show
    from f3prune.cli.tables.plan import plan_tables
    from f3prune.core.json_values import json_values
    from f3prune.pipelines.loading import pick_device

    values["mode"] = values["mode"] or choices.DEFAULT
    rates = measure_machine(pick_device())
    found = look_ahead(model, PlanOptions(**values), rates)
    show(*plan_tables(found, rates, values["dtype"]))
    for line in does_not_fit(found, Path.cwd(), psutil.virtual_memory().total):
        click.echo(line)
    if json_file is not None:
        write_text(json_file, json.dumps({"rates": json_values(rates), **json_values(found)}, indent=1) + "\n")
