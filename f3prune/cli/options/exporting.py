"""How the graph is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.types import NameList, stack
from f3prune.core.choices import DTYPES, DYNAMIC

if TYPE_CHECKING:
    from f3prune.exporter import ExportConfig

EXPORTING = stack(
    click.option(
        "--dtype", type=click.Choice(DTYPES), default="fp32", show_default=True, help="Precision of the graph."
    ),
    click.option("--opset", type=click.IntRange(18, 23), help="ONNX opset. [default: the exporter's own]"),
    click.option(
        "--dynamic",
        type=NameList(DYNAMIC),
        help="Symbolic dimensions: some of batch,text. [default: batch, and text where prompts differ in length]",
    ),
)


def export_config(values: Mapping[str, Any]) -> ExportConfig:
    """The export options of a command; what was not given is the exporter's own default."""
    from f3prune.exporter import ExportConfig

    names = ("dtype", "opset", "dynamic")
    return ExportConfig(**{name: values[name] for name in names if values[name] is not None})
