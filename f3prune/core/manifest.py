"""A manifest entry: what one step of a run read and wrote. Imports no torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from f3prune import __version__
from f3prune.core.atomic_files import canonical_json, digest_of_files, sha256_text

SEAL = "sha256"


def seal(entry: Mapping[str, Any]) -> str:
    """SHA-256 of an entry of a manifest, but for the hash itself."""
    return sha256_text(canonical_json({name: part for name, part in entry.items() if name != SEAL}))


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

    def to_json(self) -> dict[str, Any]:
        """Every part, and a SHA-256 over all of them, so that no fact can be edited."""
        parts: dict[str, Any] = json.loads(canonical_json(asdict(self)))
        return {**parts, SEAL: seal(parts)}

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Parse one entry; raises ``ValueError`` unless every part is there, of the right type and not edited."""
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
        if value.get(SEAL) != seal(value):
            raise ValueError("it was edited")
        return cls(step=step, **tables)  # type: ignore[arg-type]
