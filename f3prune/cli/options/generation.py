"""How a video is generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.types import COUNT, MAX_SEED, BoundedFloat, stack
from f3prune.core.choices import OFFLOADS

if TYPE_CHECKING:
    from f3prune.pipelines.pipeline_runs import GenerationSettings

SETTINGS = ("steps", "guidance", "height", "width", "num_frames", "seed", "latents")
_GUIDANCE = BoundedFloat(0.0, meaning="a guidance scale")
_SEED = click.IntRange(0, MAX_SEED)

LATENTS = click.option(
    "--latents",
    type=click.Choice(("inverted", "random")),
    help="Start from the latents of the clip that MODEL was tuned on, or from noise. [default: noise, or what "
    "calibration started from]",
)

OFFLOAD = click.option(
    "--offload",
    type=click.Choice(OFFLOADS),
    default="none",
    show_default=True,
    help="Where weights are while models run in PyTorch. On a GPU: model or sequential, one model or module there at a "
    "time; layers, each layer as it is needed. Without a GPU: layers leaves the denoiser's in their files.",
)
MODELS_OWN = stack(
    click.option("--steps", type=COUNT, help="Denoising steps. [default: the model's own]"),
    click.option("--guidance", type=_GUIDANCE, help="Guidance scale. [default: the model's own]"),
    click.option("--num-frames", type=COUNT, help="Frames of the video. [default: the model's own]"),
    click.option(
        "--height",
        type=COUNT,
        help="Height in pixels; in latent units for a denoiser alone. [default: the model's own]",
    ),
    click.option(
        "--width", type=COUNT, help="Width in pixels; in latent units for a denoiser alone. [default: the model's own]"
    ),
    click.option("--seed", type=_SEED, default=0, show_default=True, help="Prompt number k runs with seed + k."),
    LATENTS,
)
"""Settings of a calibration."""
STEPS = click.option("--steps", type=COUNT, help="Denoising steps. [default: calibration's]")
CALIBRATIONS = stack(
    STEPS,
    click.option("--guidance", type=_GUIDANCE, help="Guidance scale. [default: calibration's]"),
    click.option("--seed", type=_SEED, help="Seed of the start latents. [default: calibration's]"),
)
"""Settings of what follows a calibration."""


def settings_from(values: Mapping[str, Any]) -> GenerationSettings:
    """The generation settings among a command's options."""
    from f3prune.pipelines.pipeline_runs import GenerationSettings

    return GenerationSettings(**{name: values[name] for name in SETTINGS if name in values})
