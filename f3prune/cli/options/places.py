"""Where a command reads and writes."""

from __future__ import annotations

import click

from f3prune.cli.options.types import FILE, PLACE

RUN = click.argument("run", type=PLACE)
MODEL = click.argument("model")
VARIANT = click.option(
    "--variant",
    help="Read weight files of this variant, such as fp16 of diffusion_pytorch_model.fp16.safetensors, where a part of "
    "the model has them. [default: those without one]",
)
MOVED = click.option(
    "--model", metavar="DIR", help="Where the model is now, if it was moved; its files must be the same."
)
OUTPUT_RUN = click.option("-o", "--output", "run", type=PLACE, required=True, help="Run directory to write.")
JSON = click.option("--json", "json_file", type=FILE, help="Also write the numbers to this file.")
