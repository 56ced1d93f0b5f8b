"""How the graph is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.types import NameList, stack
from f3prune.core.choices import DTYPES, DYNAMIC, graph_dtype

if TYPE_CHECKING:
    from f3prune.exporter import ExportConfig

EXPORTING = stack(
    click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        help="Precision of the graph. [default: fp32 for ONNX Runtime; for TensorRT, which fuses attention in half "
        "precision alone, bf16, or fp16 with --compute-capability 7.5]",
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
    given = {name: values[name] for name in names if values[name] is not None}
    dtype = graph_dtype(values["backend"], values["compute_capabilities"], values["opset"])
    return ExportConfig(**{"dtype": dtype, **given})
