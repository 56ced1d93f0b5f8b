"""The HTML page of a run: one file, no request to anywhere, light and dark, complete without its script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from f3prune.report.atlas import Atlas
from f3prune.report.charts import LEVELS
from f3prune.report.measurements import Parity, Quality, Speed, Sweep
from f3prune.report.overview import Head, Media, Pruned, Video

__all__ = ["Media", "render"]


def render(data: Mapping[str, Any], media: Media) -> str:
    """The page; sections that the run has nothing for are left out.

    Args:
        data: content of ``report.json``.
        media: videos and frames, shown in place.
    """
    sections = {
        "video": Video.of(data, media),
        "quality": Quality.of(data["quality"]),
        "pruned": Pruned.of(data),
        "atlas": Atlas.of(data),
        "speed": Speed.of(data["speed"], data["ceiling"]),
        "sweep": Sweep.of(data["sweep"]),
        "parity": Parity.of(data["parity"]),
        "provenance": data["provenance"],
    }
    style, script = (_file(name) for name in ("report.css", "report.js"))
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(
        **sections,
        sections=sections,
        head=Head.of(data),
        levels=LEVELS,
        style=Markup(style),
        script=Markup(script),
        policy=Markup(_policy(script)),
    )


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Content-Security-Policy: nothing is fetched, and no script but this one runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        f"base-uri 'none'; form-action 'none'"
    )
