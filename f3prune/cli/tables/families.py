"""The supported families."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from rich.table import Table


def verified_facts() -> dict[str, Any]:
    """What was verified for each family, as the verification script wrote it; empty where it never ran."""
    file = resources.files("f3prune.families") / "verified.json"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(value) if isinstance(value, dict) else {}


def families_table() -> Table:
    """The supported families."""
    from f3prune.families import registry

    verified = verified_facts()
    known = verified.get("families", verified)
    table = Table(title="Supported model families")
    for column in ("family", "models", "denoiser class", "layout", "text", "verified", "notes"):
        table.add_column(column, overflow="fold")
    for family in registry().values():
        facts = known.get(family.name)
        table.add_row(
            family.name,
            family.title,
            family.denoiser_class,
            family.layout,
            family.text,
            _facts(facts) if facts else "–",
            family.notes,
        )
    return table


def unsupported_table() -> Table:
    """The video denoisers of diffusers that are not supported."""
    from f3prune.families import UNSUPPORTED

    table = Table(title="Video denoisers of diffusers that are not supported")
    for column in ("denoiser class", "why"):
        table.add_column(column, overflow="fold")
    for name, reason in UNSUPPORTED.items():
        table.add_row(name, reason)
    return table


def _facts(facts: Any) -> str:
    """One line of verified facts: text as it is, mappings as ``name value``."""
    if isinstance(facts, Mapping):
        return ", ".join(str(name) if value is True else f"{name} {value}" for name, value in facts.items() if value)
    if isinstance(facts, list):
        return ", ".join(map(str, facts))
    return str(facts)
