"""``f3prune reuse``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.generation import CALIBRATIONS
from f3prune.cli.options.places import MOVED, RUN
from f3prune.cli.options.types import BoundedFloat
from f3prune.cli.runs import kept, opened


@click.command(short_help="Choose denoising steps to skip.")
@RUN
@MOVED
@click.option(
    "--min-psnr",
    type=BoundedFloat(0.0, meaning="a PSNR in dB"),
    default=35.0,
    show_default=True,
    help="Skip as many steps as keep the video at this PSNR (dB) to the same engine's video without skipping.",
)
@click.option(
    "--skip", type=float, metavar="SHARE", help="Skip this share of the steps, e.g. 0.4, in place of --min-psnr."
)
@click.option("--prompt", help="Prompt to measure with. [default: the first calibration prompt]")
@CALIBRATIONS
def reuse(run: Path, model: str | None, **values: Any) -> None:
    """Choose the denoising steps that are extrapolated from earlier steps, not computed.

    One generation is recorded, and what skipping costs is measured by generating with a few choices. `f3prune generate
    --reuse` then skips those steps, on any prompt with the same number of steps.
    """
    with opened(run, model) as (directory, reporter):
        from f3prune.steps.reuse import ReuseOptions
        from f3prune.steps.reuse import reuse as step

        facts, made = step(directory, ReuseOptions(**values), reporter)
    skipped = ", ".join(str(index + 1) for index in facts["skipped"])
    click.echo(
        f"{len(facts['skipped'])} of {facts['steps']} steps are skipped ({skipped}): {facts['psnr']:.1f} dB to the "
        f"same engine without{kept(made)}; use them with `f3prune generate {run} --reuse`"
    )
