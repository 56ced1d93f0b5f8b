"""``f3prune generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.generation import CALIBRATIONS, LATENTS, OFFLOAD
from f3prune.cli.options.places import MOVED, RUN
from f3prune.cli.options.types import PLACE
from f3prune.cli.runs import read
from f3prune.core import choices
from f3prune.core.errors import InputError


@click.command(short_help="Generate a video with the engine.")
@RUN
@click.option("--prompt", required=True, help="What the video shows.")
@click.option("--negative-prompt", "negative", help="What the video does not show. [default: the pipeline's own]")
@click.option("--image", type=PLACE, help="Conditioning image, for image-to-video models.")
@click.option(
    "-o",
    "--output",
    type=PLACE,
    required=True,
    help="out.mp4, out.gif, frame-%03d.png, sheet.png, or a new directory for PNG frames.",
)
@CALIBRATIONS
@LATENTS
@OFFLOAD
@click.option("--backend", type=click.Choice(choices.BACKENDS), help="Insist on an engine of this backend.")
@MOVED
@click.option("--reuse", is_flag=True, help="Skip the denoising steps that `f3prune reuse` chose.")
def generate(run: Path, prompt: str, image: Path | None, output: Path, model: str | None, **values: Any) -> None:
    """Generate a video with the pruned engine in the original pipeline.

    Nothing is written to RUN, which may be read-only, and others may generate from it at the same time.
    """
    from f3prune.pipelines.video import check_output

    check_output(output)
    if image is not None and not image.is_file():
        raise InputError(f"--image {image} does not exist: give a PNG or JPEG file")
    with read(run, model) as (directory, reporter):
        from f3prune.steps.generate import GenerateOptions
        from f3prune.steps.generate import generate as step

        files, frames = step(directory, GenerateOptions(prompt, image, **values), output, reporter)
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    click.echo(f"{files[0]}{more}: {frames.shape[0]} frames of {frames.shape[2]} x {frames.shape[1]} pixels")
