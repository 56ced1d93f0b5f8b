"""Open a run's engines, put them into its pipeline, and generate."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from f3prune.core.errors import BackendError, InputError
from f3prune.core.progress import Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.engines import BuildConfig
from f3prune.exporter.self_test import save_as_float32
from f3prune.pipelines.loading import pick_device
from f3prune.pipelines.memory import check_engine_offload
from f3prune.pipelines.pipeline_runs import Frames, GenerationSettings, run_prompt
from f3prune.pipelines.prompts import Prompt
from f3prune.steps._state import RunState, Variant, masks_of_run, stage_directories
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.export import STEP as EXPORT_STEP


def verified_engine(run: RunDirectory, variant: Variant = "pruned", backend: str | None = None) -> list[Path]:
    """The engine directories of all stages, after every file was hashed and the recorded inputs were compared.

    Raises:
        ArtifactError: missing, altered, or made from other inputs.
        BackendError: built for another backend than ``backend``.
    """
    step = BUILD_STEP[variant]
    entry = run.require(step)
    for earlier in (EXPORT_STEP[variant], "pruned", "masks") if variant == "pruned" else (EXPORT_STEP[variant],):
        run.require_current(earlier)
    built = str(entry.facts["backend"])
    if backend is not None and backend != built:
        raise BackendError(
            f"{run.directory(step)} was built for {built}, not {backend}: "
            f"run `build(run={str(run.path)!r}, backend={backend!r})` first"
        )
    return stage_directories(run.directory(step), int(entry.facts["stages"]))


@contextlib.contextmanager
def engine_denoiser(state: RunState, variant: Variant = "pruned", backend: str | None = None) -> Iterator[Any]:
    """A denoiser that runs on the run's engines, for as long as the context lasts: an ``EngineDenoiser``, or for
    CogVideo an ``EngineCogVideo``.

    Raises:
        ArtifactError, BackendError: see ``verified_engine`` and ``f3prune.engines.open_session``.
    """
    folders = verified_engine(state.run, variant, backend)
    masks = None
    if variant == "pruned":
        masks = masks_of_run(state.run)
    with state.strategy.open_engine(folders, _config_of(state, len(folders)), masks) as engine:
        yield engine


def _config_of(state: RunState, stages: int) -> Path:
    """Directory of a ``config.json`` of the denoiser."""
    pruned = state.run.directory("pruned")
    config = stage_directories(pruned, stages)[0]
    if (config / "config.json").is_file():
        state.run.verify_file("pruned", (config / "config.json").relative_to(pruned).as_posix())
        return config
    # AnimateDiff's configuration exists only once it was put together and saved.
    state.verified_source_digest()
    return state.source.denoiser_path


@contextlib.contextmanager
def graph_denoiser(state: RunState) -> Iterator[Any]:
    """The run's exported graphs in ONNX Runtime, for a machine where its engines cannot run.

    Graphs in bfloat16 run as fp32, with the weights that bfloat16 left: ONNX Runtime's CPU provider lacks operators.

    Raises:
        ArtifactError: a graph is missing, altered or stale.
        BuildError: ONNX Runtime refuses a graph.
    """
    graph = state.run.require_current(EXPORT_STEP["pruned"])
    masks = masks_of_run(state.run)
    stages = int(graph.facts["stages"])
    pruned = state.run.directory("pruned")
    with tempfile.TemporaryDirectory(prefix="f3prune-") as scratch:
        folders = stage_directories(Path(scratch) / "engine", stages)
        for source, folder in zip(
            stage_directories(state.run.directory(EXPORT_STEP["pruned"]), stages), folders, strict=True
        ):
            graphs = _widened(source, Path(scratch) / "graph") if graph.facts["dtype"] == "bf16" else source
            folder.mkdir(parents=True, exist_ok=True)
            config = BuildConfig("onnxruntime", cache=False)
            state.strategy.build(graphs, folder, pruned, config, masks.digest, lambda fraction, phase: None)
        with state.strategy.open_engine(folders, _config_of(state, stages), masks) as engine:
            yield engine


def _widened(graphs: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(graphs.rglob("*.onnx")):
        folder = target / path.parent.relative_to(graphs)
        folder.mkdir(parents=True, exist_ok=True)
        save_as_float32(path, folder)
    return target


@contextlib.contextmanager
def engine_pipeline(
    state: RunState, variant: Variant = "pruned", backend: str | None = None, offload: str = "none"
) -> Iterator[Any]:
    """The unmodified pipeline of MODEL with its denoiser running on the engines.

    Raises:
        InputError: MODEL is a denoiser alone.
        ArtifactError, BackendError: see ``engine_denoiser``.
    """
    device = pick_device()
    check_engine_offload(offload, device)
    state.verified_pipeline_digest()
    with engine_denoiser(state, variant, backend) as denoiser:
        yield state.strategy.pipeline_with(state.source, denoiser, device, offload)


def generate_frames(
    pipeline: Any,
    state: RunState,
    settings: GenerationSettings,
    prompt: Prompt,
    description: str,
    reporter: Reporter,
) -> Frames:
    """One video with progress: frames ``f h w 3``, float32 in [0, 1].

    Raises:
        InputError: the pipeline refuses the settings, or gives no frames.
    """
    settings = state.strategy.settings_of(pipeline, settings)
    total = state.strategy.progress_total(pipeline, settings)
    with reporter.task(description, total=total) as advance:
        frames: Frames | None = run_prompt(pipeline, settings, prompt, 0, state.family, on_step=advance)
    if frames is None:
        raise InputError(f"{type(pipeline).__name__} gave no frames")
    return frames
