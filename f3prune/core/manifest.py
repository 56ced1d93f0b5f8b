"""A manifest entry: what one step of a run read and wrote. Imports no torch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from f3prune import __version__
from f3prune.core.atomic_files import canonical_json, digest_of_files


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of f3prune and of the named distributions that are installed."""
    versions = {"f3prune": __version__}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


@dataclass(frozen=True)
class Manifest:
    """What one step read and wrote.

    Attributes:
        step: name of the step, e.g. ``onnx``.
        inputs: what it was made from, ``name -> SHA-256``.
        options: its options, JSON values only.
        versions: packages that decide what it writes, ``name -> version``.
        files: what it wrote, ``path relative to the manifest's directory -> SHA-256``.
        facts: what the step found out and later steps want to know without opening its files; not compared.
    """

    step: str
    inputs: dict[str, str]
    options: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over the files: what a later step records as its input."""
        return digest_of_files(self.files)

    def same_recipe(self, other: Manifest) -> bool:
        """Whether both were made from the same inputs, with the same options and packages."""
        return all(
            canonical_json(getattr(self, part)) == canonical_json(getattr(other, part))
            for part in ("step", "inputs", "options", "versions")
        )

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Parse one entry; raises ``ValueError`` unless every part is there and of the right type."""
        if not isinstance(value, dict):
            raise ValueError("not an object")
        step, files = value.get("step"), value.get("files")
        tables = {name: value.get(name) for name in ("inputs", "options", "versions", "files", "facts")}
        if not isinstance(step, str) or not all(isinstance(table, dict) for table in tables.values()):
            raise ValueError("a part is missing")
        for name in ("inputs", "versions", "files"):
            table = tables[name]
            if not isinstance(table, dict) or not all(isinstance(entry, str) for entry in table.values()):
                raise ValueError(f"{name} must map names to text")
        if not files:
            raise ValueError("a step without files")
        for name in files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"file {name!r} is outside the directory")
        return cls(step=step, **tables)  # type: ignore[arg-type]
