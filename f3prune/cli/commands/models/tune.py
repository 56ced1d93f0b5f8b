"""``f3prune tune``: an image model learns the motion of one clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from f3prune.cli.options.places import VARIANT
from f3prune.cli.options.types import COUNT, MAX_SEED, PLACE, BoundedFloat
from f3prune.core.progress import RichReporter


@click.command(short_help="Tune an image model on one clip.")
@click.argument("video", type=PLACE)
@click.option("--prompt", required=True, help="What the video shows.")
@click.option("--base", required=True, help="A Stable Diffusion 1.x or 2.x pipeline directory, or zoo:digits-image.")
@VARIANT
@click.option("-o", "--output", type=PLACE, required=True, help="Directory of the tuned pipeline to write.")
@click.option("--steps", type=COUNT, default=500, show_default=True, help="Steps of the optimiser.")
@click.option(
    "--lr",
    "learning_rate",
    type=BoundedFloat(1e-12, 1.0, "a learning rate"),
    default=3e-5,
    show_default=True,
    help="Learning rate; it is constant.",
)
@click.option("--frames", type=COUNT, default=8, show_default=True, help="Frames to learn.")
@click.option("--start", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the first frame.")
@click.option("--rate", type=COUNT, default=1, show_default=True, help="Take one frame of this many.")
@click.option("--size", type=COUNT, help="Height and width in pixels. [default: the base's own]")
@click.option("--inversion-steps", type=COUNT, default=50, show_default=True, help="Steps from the clip back to noise.")
@click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Seed of noise and timesteps."
)
@click.option("--checkpoint-every", type=COUNT, default=100, show_default=True, help="Steps between two checkpoints.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint of a tuning that was stopped.")
def tune(video: Path, output: Path, **values: Any) -> None:
    """Teach an image model the motion of one clip (Tune-A-Video). The result is a MODEL for all other commands.

    The start latents of the clip are kept with it. `--latents inverted` starts from them, so that an edited prompt
    keeps the motion.
    """
    with RichReporter() as reporter:
        from f3prune.steps.tune import TuneOptions
        from f3prune.steps.tune import tune as step

        record = step(output, TuneOptions(video, **values), reporter)
    frames, loss = record["frames"], record["loss"]
    click.echo(
        f"{output}: tuned {record['tuning']['steps']} steps on {frames['count']} frames of {frames['size']} x "
        f"{frames['size']} pixels, {record['trained_parameters']:,} parameters, loss {loss['first_tenth']:.4f} to "
        f"{loss['last_tenth']:.4f} (means of the first and last tenth)"
    )
