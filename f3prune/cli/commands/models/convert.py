"""``f3prune convert``: a published checkpoint becomes what the other commands take."""

from __future__ import annotations

from pathlib import Path

import click

from f3prune.cli.options.types import PLACE
from f3prune.core.progress import RichReporter

SHAPES = ("cogvideo-stage1", "cogvideo-stage2")
"""Keys of ``f3prune.models.cogvideo.PUBLISHED``, which imports torch."""


@click.group(short_help="Turn a published checkpoint into a MODEL.")
def convert() -> None:
    """Turn a published checkpoint into a directory with config.json and safetensors: a MODEL for all other commands."""


@convert.command(short_help="CogVideo's mp_rank_00_model_states.pt.")
@click.argument("file", type=PLACE)
@click.option("-o", "--output", type=PLACE, required=True, help="Directory to write.")
@click.option("--shape", type=click.Choice(SHAPES), help="Which published model it is. [default: cogvideo-stage1]")
@click.option("--config", type=PLACE, help="JSON file with the hyperparameters, in place of --shape.")
def cogvideo(file: Path, output: Path, shape: str | None, config: Path | None) -> None:
    """Convert CogVideo's FILE (mp_rank_00_model_states.pt, key `module`).

    Nothing but tensors is unpickled. All names and shapes must fit the hyperparameters. Tensors keep their dtype.
    """
    with RichReporter() as reporter:
        from f3prune.steps.convert import cogvideo_config, convert_cogvideo

        known = cogvideo_config(shape, config)
        made = convert_cogvideo(file, output, known, reporter)
    click.echo(
        f"{output}: CogVideo of {known.num_layers} layers and width {known.hidden_size}, {made.parameters:,} "
        f"parameters in {', '.join(made.dtypes)}, {len(made.files)} safetensors file{'s' * (len(made.files) > 1)}"
    )
