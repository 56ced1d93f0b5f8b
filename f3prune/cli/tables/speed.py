"""The quick measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def speed_table(speed: Mapping[str, Any]) -> Table:
    """Milliseconds per denoiser call, or per token, of every contestant."""
    runs = min(row["runs"] for row in speed["seconds"].values())
    title = f"One {speed['unit']}, {speed['backend']} {speed['engine_dtype']}, batch {speed['batch']}, {runs} rounds"
    table = Table(title=title)
    table.add_column("denoiser")
    for column in ("median, ms", "quartiles, ms", "against dense"):
        table.add_column(column, justify="right")
    for name, row in speed["seconds"].items():
        dense = speed["seconds"][name.replace("pruned", "dense")]["median"]
        quartiles = f"{1e3 * row['quartile_1']:.2f} – {1e3 * row['quartile_3']:.2f}"
        table.add_row(name, f"{1e3 * row['median']:.2f}", quartiles, f"{dense / row['median']:.2f}×")
    return table
