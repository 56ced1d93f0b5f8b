"""The card, what it reaches, and the versions of everything."""

from __future__ import annotations

from importlib import metadata

from _timing import card
from _visit import Visit

PACKAGES = (
    "torch",
    "triton",
    "diffusers",
    "onnx",
    "onnxruntime",
    "polygraphy",
    "tensorrt_rtx_cu13",
    "tensorrt_rtx_cu12",
)


def run(visit: Visit) -> None:
    """Write one row."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    visit.write("card", **card(visit.device), versions=versions)
