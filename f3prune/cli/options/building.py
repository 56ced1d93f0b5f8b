"""What runs the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.types import BoundedFloat, Capability, Range, stack
from f3prune.core.choices import BACKENDS

if TYPE_CHECKING:
    from f3prune.engines import BuildConfig

TARGET = stack(
    click.option(
        "--backend", type=click.Choice(BACKENDS), default="onnxruntime", show_default=True, help="What runs the graph."
    ),
    click.option(
        "--compute-capability",
        "compute_capabilities",
        multiple=True,
        type=Capability(),
        help="GPU that a TensorRT-RTX engine is compiled for, e.g. 8.9; may be repeated. [default: 8.0, 8.6, 8.9, "
        "12.0 and later; 7.5 (Turing) has to be named]",
    ),
)
"""What the graph is for."""
BUILDING = stack(
    TARGET,
    click.option(
        "--batch",
        type=Range(),
        default="1,2,2",
        show_default=True,
        metavar="LEAST,USUAL,MOST",
        help="Batches of one denoiser call that the engine takes.",
    ),
    click.option(
        "--weight-streaming",
        type=BoundedFloat(0.0, meaning="a size in GiB"),
        metavar="GIB",
        help="Keep this much of the weights on the GPU, and stream the rest from the machine's memory (TensorRT). "
        "[default: all of them]",
    ),
)


def build_config(values: Mapping[str, Any]) -> BuildConfig:
    """The build options of a command.

    Raises:
        InputError: compute capabilities for a backend that does not compile ahead of time.
    """
    from f3prune.engines import BuildConfig

    names = ("batch", "compute_capabilities", "weight_streaming")
    return BuildConfig(values["backend"], **{name: values[name] for name in names})
