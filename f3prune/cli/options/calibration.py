"""What is measured, on which prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.generation import MODELS_OWN, OFFLOAD, settings_from
from f3prune.cli.options.places import VARIANT
from f3prune.cli.options.types import COUNT, PLACE, stack

if TYPE_CHECKING:
    from f3prune.steps.calibrate import CalibrateOptions

CALIBRATION = stack(
    VARIANT,
    click.option(
        "--prompts",
        type=PLACE,
        help="A .txt file, one prompt per line, or a .jsonl file. [default: the model's own list]",
    ),
    click.option("--num-prompts", type=COUNT, help="Use this many prompts, from the first on. [default: all]"),
    MODELS_OWN,
    click.option(
        "--rows", type=COUNT, help="Measure this many query tokens per frame, drawn at random. [default: all]"
    ),
    click.option(
        "--sites",
        type=click.Choice(("temporal", "sparse-causal", "all")),
        default="temporal",
        show_default=True,
        help="Which attention is measured and may then be pruned; sparse-causal is Tune-A-Video's spatial attention, "
        "which sees other frames too.",
    ),
    OFFLOAD,
    click.option(
        "--lora",
        metavar="FILE[:SCALE]",
        multiple=True,
        help="Fuse this LoRA into the denoiser first; may be repeated. [default: none, and a scale of 1]",
    ),
    click.option(
        "--random-weights", is_flag=True, help="Make seeded random weights, for a denoiser's config.json that has none."
    ),
)


def calibrate_options(model: str, values: Mapping[str, Any]) -> CalibrateOptions:
    """The calibration options of a command."""
    from f3prune.pipelines.lora import lora_of
    from f3prune.steps.calibrate import CalibrateOptions

    loras = tuple(lora_of(text) for text in values["lora"])
    names = ("prompts", "num_prompts", "rows", "random_weights", "sites", "variant", "offload")
    return CalibrateOptions(model, settings=settings_from(values), lora=loras, **{name: values[name] for name in names})
