"""``f3prune families``."""

from __future__ import annotations

import click


@click.command(short_help="List the supported families.")
def families() -> None:
    """List the supported model families, what was verified for each, and why other video models are not supported."""
    from f3prune.cli.tables import show
    from f3prune.cli.tables.families import families_table, unsupported_table

    show(families_table(), unsupported_table())
