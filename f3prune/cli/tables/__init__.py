"""What commands print: rich tables and one-line descriptions."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table


def show(*tables: Table) -> None:
    """Print tables on standard output; where that is no terminal, wide enough that nothing is cut."""
    console = Console() if sys.stdout.isatty() else Console(width=200)
    for table in tables:
        console.print(table)
