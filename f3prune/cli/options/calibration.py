"""What is measured, on which prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.generation import MODELS_OWN, settings_from
from f3prune.cli.options.types import COUNT, PLACE, stack

if TYPE_CHECKING:
    from f3prune.steps.calibrate import CalibrateOptions

CALIBRATION = stack(
    click.option(
        "--prompts",
        type=PLACE,
        help="A .txt file, one prompt per line, or a .jsonl file. [default: the model's own list]",
    ),
    click.option("--num-prompts", type=COUNT, help="Use the first so many prompts. [default: all of them]"),
    MODELS_OWN,
    click.option("--rows", type=COUNT, help="Estimate from so many query tokens per frame. [default: measure all]"),
    click.option(
        "--sites",
        type=click.Choice(("temporal", "sparse-causal", "all")),
        default="temporal",
        show_default=True,
        help="Which attention is measured, and may be pruned; sparse-causal is Tune-A-Video's between frames.",
    ),
    click.option("--random-weights", is_flag=True, help="For a denoiser's config.json without weights: seeded ones."),
)


def calibrate_options(model: str, values: Mapping[str, Any]) -> CalibrateOptions:
    """The calibration options of a command."""
    from f3prune.steps.calibrate import CalibrateOptions

    names = ("prompts", "num_prompts", "rows", "random_weights", "sites")
    return CalibrateOptions(model, settings=settings_from(values), **{name: values[name] for name in names})
