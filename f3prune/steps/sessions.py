"""Open a run's engines, and put them into its pipeline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from f3prune.calibration import Masks
from f3prune.core.errors import BackendError
from f3prune.core.run_directory import RunDirectory
from f3prune.engines import EngineDenoiser, Session, open_session
from f3prune.families import denoiser_component
from f3prune.pipelines.loading import load_pipeline, pick_device, working_dtype
from f3prune.steps import autoregressive
from f3prune.steps._state import RunState, Variant, stage_directories
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.export import STEP as EXPORT_STEP
from f3prune.steps.prune import MASKS


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
        state.run.require("masks")
        masks = Masks.load(state.run.path / MASKS)
    if state.family.autoregressive:
        shape = autoregressive.shape_of(_config_directory(state, state.run.directory("pruned")))
        with autoregressive.open_engine(folders[0], shape, masks.digest if masks is not None else None) as engine:
            yield engine
        return
    with contextlib.ExitStack() as stack:
        sessions: list[Session] = []
        for folder in folders:
            session = open_session(folder, masks_digest=masks.digest if masks is not None else None)
            stack.enter_context(session)
            sessions.append(session)
        config = stage_directories(state.run.directory("pruned"), len(folders))[0]
        if variant == "dense" or masks is None or len(sessions) == 1:
            yield EngineDenoiser(_config_directory(state, config), sessions[0])
        else:
            lows = [stage.timesteps[1] for stage in masks.stages]
            yield EngineDenoiser(_config_directory(state, config), list(zip(lows, sessions, strict=True)))


def _config_directory(state: RunState, pruned: Path) -> Path:
    """Where the denoiser's configuration is; AnimateDiff's exists only once it was put together and saved."""
    return pruned if (pruned / "config.json").is_file() else state.source.denoiser_path


@contextlib.contextmanager
def engine_pipeline(state: RunState, variant: Variant = "pruned", backend: str | None = None) -> Iterator[Any]:
    """The unmodified pipeline of MODEL with its denoiser running on the engines.

    Raises:
        InputError: MODEL is a denoiser alone.
        ArtifactError, BackendError: see ``engine_denoiser``.
    """
    device = pick_device()
    with engine_denoiser(state, variant, backend) as denoiser:
        if state.family.autoregressive:
            yield load_pipeline(state.source, working_dtype(state.source, device), device, denoiser)
            return
        skeleton = denoiser.__dict__["_skeleton"]
        pipeline = load_pipeline(state.source, working_dtype(state.source, device), denoiser=skeleton)
        component = denoiser_component(pipeline)
        setattr(pipeline, component, denoiser)
        for name, module in pipeline.components.items():
            if name != component and isinstance(module, torch.nn.Module):
                module.to(device)
        yield pipeline
