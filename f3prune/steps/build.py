"""Build: ONNX in, engine out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Advance, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.engines import BuildConfig, EngineRecord, share_weights
from f3prune.engines.backends.trt_flavour import PACKAGES as TENSORRT_PACKAGES
from f3prune.families import registry
from f3prune.steps._state import Variant, masks_of_run, stage_directories
from f3prune.steps.export import STEP as EXPORT_STEP
from f3prune.steps.strategy import strategy_of

STEP: dict[Variant, str] = {"pruned": "engine", "dense": "dense-engine"}
MOST_TEXT = 512
"""Text tokens that an engine with a symbolic number of them takes at least."""
PACKAGES = ("onnxruntime-gpu", "onnxruntime", *TENSORRT_PACKAGES, "polygraphy")


def build(
    run: RunDirectory,
    config: BuildConfig | None = None,
    variant: Variant = "pruned",
    reporter: Reporter = SILENT,
) -> tuple[Manifest, bool]:
    """Write ``engine/`` (or ``dense/engine/``), one engine per stage.

    Returns:
        The step's manifest entry, and whether it was made now.

    Raises:
        ArtifactError: the graph is missing, altered or stale.
        BackendError: the backend is not installed or cannot build here.
        BuildError: the backend refused the graph.
    """
    config = config or BuildConfig()
    graph = run.require(EXPORT_STEP[variant])
    stages = int(graph.facts["stages"])
    strategy = strategy_of(registry()[graph.facts["graphs"][0]["metadata"]["f3prune.family"]])
    config = _with_text_range(run, config, graph) if strategy.one_graph else config
    masks_digest = None
    if variant == "pruned":
        masks_digest = masks_of_run(run).digest
    recipe = Manifest(
        STEP[variant],
        {EXPORT_STEP[variant]: graph.digest},
        {**json.loads(config.to_json()), "device": _device(config.backend)},
        package_versions(*PACKAGES),
    )
    if (found := run.up_to_date(recipe)) is not None:
        return found, False

    def make(scratch: Path) -> dict[str, Any]:
        records: list[EngineRecord] = []
        sources = stage_directories(run.directory(EXPORT_STEP[variant]), stages)
        with reporter.task(f"building the {variant} engine", total=stages * 100) as advance:
            for source, folder in zip(sources, stage_directories(scratch, stages), strict=True):
                percent = _Percent(advance)
                records += strategy.build(source, folder, run.directory("pruned"), config, masks_digest, percent)
                percent(1.0, "built")
        first = records[0]
        shared = None
        if stages > 1 and strategy.one_graph and config.backend == "onnxruntime":
            shared = share_weights(stage_directories(scratch, stages))
        return {
            "shared_weights": shared,
            "backend": first.backend,
            "backend_version": first.backend_version,
            "dtype": first.dtype,
            "stages": stages,
            "seconds": [record.built.get("seconds") for record in records],
            "attention_fused": [record.built.get("attention_fused") for record in records],
            "attention_unfused": [record.built.get("attention_unfused") for record in records],
            "bytes": [sum(int(entry["bytes"]) for entry in record.files.values()) for record in records],
        }

    return run.perform(recipe, make)


class _Percent:
    """The builder's fraction as steps of a bar of 100; a builder that starts over does not move it back."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._shown = advance, 0

    def __call__(self, fraction: float, phase: str) -> None:
        del phase
        while self._shown < min(100, int(fraction * 100)):
            self._advance()
            self._shown += 1


def _with_text_range(run: RunDirectory, config: BuildConfig, graph: Manifest) -> BuildConfig:
    """Give a symbolic number of text tokens a range: calibration's length is the one that kernels are chosen for."""
    sizes = [size for entry in graph.facts["graphs"] for spec in entry["inputs"] for size in spec["shape"]]
    if "text" not in sizes or "text" in config.ranges:
        return config
    entry = run.manifest("calibrate")
    longest = max(entry.facts["text_lengths"]) if entry is not None and entry.facts["text_lengths"] else 1
    return replace(config, ranges={**config.ranges, "text": (1, longest, max(longest, MOST_TEXT))})


def _device(backend: str) -> str:
    """TensorRT engines belong to the GPU they were timed on."""
    if backend != "tensorrt":
        return ""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
