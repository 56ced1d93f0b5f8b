"""Pruned models, graphs and engines for many pruning configurations of one run, each made once and kept."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from f3prune.bench.contest.generation import Generation
from f3prune.bench.contest.timed import TimedDenoiser
from f3prune.bench.speed import ensure_dense_engine
from f3prune.calibration import Masks, PruneConfig
from f3prune.core.atomic_files import sha256_text
from f3prune.core.captured_calls import FILE as CALLS
from f3prune.core.errors import ArtifactError
from f3prune.core.json_values import from_json_values
from f3prune.core.manifest import Manifest
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.core.tensors import GRAPH_FILE, short_name
from f3prune.engines import BuildConfig
from f3prune.engines.step_reuse import Recording, StepRecorder, StepReuse, choose, steps_to_skip
from f3prune.exporter import ExportConfig
from f3prune.pipelines.pipeline_runs import Frames
from f3prune.steps._state import RunState, Variant, masks_of_run, stage_directories
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.build import build
from f3prune.steps.calibrate import AAS
from f3prune.steps.check import pruned_torch
from f3prune.steps.export import STEP as EXPORT_STEP
from f3prune.steps.export import export
from f3prune.steps.prune import prune
from f3prune.steps.scores import masks_of
from f3prune.steps.sessions import engine_denoiser

FOLDER = "contenders"
"""Where in a run the sweep's own runs are, one for every different set of masks."""


def masks_key(masks: Masks) -> str:
    """What masks prune, whatever they were called: equal keys make equal models."""
    stages = [
        {
            name: [mask.pruned_heads, mask.kept_pairs, mask.stand_in.to_json()]
            for name, mask in stage.sites.items()
            if not mask.untouched
        }
        for stage in masks.stages
    ]
    if not any(stages):
        return "dense"
    bounds = [stage.timesteps for stage in masks.stages] if len(stages) > 1 else []
    return sha256_text(json.dumps([bounds, stages, masks.refit], sort_keys=True))[:12]


class Sweep:
    """The ``BenchContext`` of a run.

    Attributes:
        generation: what is generated.
    """

    def __init__(self, state: RunState, generation: Generation, reporter: Reporter = SILENT) -> None:
        """Give the run, built, and what it generates."""
        self._state, self.generation, self._reporter = state, generation, reporter
        self.family, self.strategy = generation.family, generation.strategy
        self.device, self.dtype = generation.device, generation.dtype
        self.steps, self.guidance_in_batch = generation.steps, generation.guidance_in_batch
        state.run.require("masks")
        self._own = masks_of_run(state.run)
        self._export = from_json_values(ExportConfig, state.run.require_current(EXPORT_STEP["pruned"]).options)
        self._states: dict[tuple[str, str], RunState] = {}
        self._reuses: dict[float, StepReuse] = {}
        self._recorded: tuple[Recording, Frames] | None = None

    # -- what is different -------------------------------------------------------------------------------------------

    def own_config(self) -> PruneConfig:
        """What the run itself prunes."""
        options = self._state.run.require("masks").options
        return PruneConfig(**{**options, "protect": tuple(options["protect"])})

    def key(self, config: PruneConfig) -> str:
        """See ``masks_key``."""
        return masks_key(masks_of(self._state, config, self._reporter))

    def distinct(self, configs: Sequence[PruneConfig]) -> list[PruneConfig]:
        """The first configuration of each kind of masks; those that prune nothing are left out."""
        found: dict[str, PruneConfig] = {}
        for config in configs:
            found.setdefault(self.key(config), config)
        found.pop("dense", None)
        return list(found.values())

    # -- the context ------------------------------------------------------------------------------------------------

    def dense(self) -> nn.Module:
        """A copy of the dense denoiser that shares its weights and has hooks of its own."""
        dense = self.generation.dense
        shared = {id(tensor): tensor for tensor in (*dense.parameters(), *dense.buffers())}
        return copy.deepcopy(dense, shared)

    def pruned(self, config: PruneConfig) -> nn.Module:
        """The pruned denoiser in PyTorch."""
        return pruned_torch(self._pruned_state(config), self.device, short_name(self.dtype)).eval()

    def graphs(self, config: PruneConfig | None) -> list[tuple[float, Path]]:
        """Exported graphs, made where they are missing."""
        if config is None:
            self._dense_engine()
            return [(float("-inf"), self._state.run.directory(EXPORT_STEP["dense"]) / GRAPH_FILE)]
        state = self._exported_state(config)
        state.run.require(EXPORT_STEP["pruned"])
        masks = masks_of_run(state.run)
        folders = stage_directories(state.run.directory(EXPORT_STEP["pruned"]), len(masks.stages))
        return [(stage.timesteps[1], folder / GRAPH_FILE) for stage, folder in zip(masks.stages, folders, strict=True)]

    def build_config(self) -> BuildConfig:
        """How the run's own engine was built."""
        recorded = self._state.run.require_current(BUILD_STEP["pruned"]).options
        return BuildConfig.from_json(json.dumps({name: value for name, value in recorded.items() if name != "device"}))

    def configuration(self) -> Path:
        """Directory of the denoiser's ``config.json``."""
        pruned = stage_directories(self._state.run.directory("pruned"), len(self._own.stages))[0]
        return pruned if (pruned / "config.json").is_file() else self._state.source.denoiser_path

    @contextlib.contextmanager
    def engine(self, config: PruneConfig | None, backend: str) -> Iterator[nn.Module]:
        """A denoiser on engines of this package, built where they are missing."""
        own = self.build_config().backend
        variant: Variant = "pruned"
        if config is None and backend == own:
            self._dense_engine()
            state, variant = self._state, "dense"
        else:
            # A dense engine of another backend than the run's own is the engine of masks that prune nothing.
            chosen = config or PruneConfig(0.0)
            state = self._exported_state(chosen, backend)
            if state.run.path != self._state.run.path:
                build(state.run, self._build_for(backend), "pruned", self._reporter)
        with engine_denoiser(state, variant, backend) as denoiser:
            yield denoiser

    def step_reuse(self, share: float) -> StepReuse:
        """The steps to skip, chosen once on the dense engine of the run's backend.

        Raises:
            ValueError: so many cannot be skipped.
        """
        if share not in self._reuses:
            with self.engine(None, self.build_config().backend) as denoiser:
                self._reuses[share] = self._chosen_reuse(denoiser, share)
        return self._reuses[share]

    def _chosen_reuse(self, denoiser: Any, share: float) -> StepReuse:
        if self._recorded is None:
            recorder = StepRecorder(denoiser, self.family.latents, self.family.channels)
            frames = self.generation.run(TimedDenoiser(recorder, self.device)).frames
            self._recorded = (recorder.recording(), frames)
        recording, reference = self._recorded

        def quality(plan: StepReuse) -> float:
            denoiser.reuse_steps(plan)
            made = self.generation.run(TimedDenoiser(denoiser, self.device)).frames
            return -float(((made - reference) ** 2).mean())

        chosen = choose(recording, steps_to_skip(share, len(recording.timesteps)), quality)
        if chosen is None:
            raise ValueError(f"{share:.0%} of {len(recording.timesteps)} steps cannot be skipped")
        return chosen[0]

    def warm_up(self, denoiser: nn.Module) -> None:
        """One whole generation whose result is thrown away."""
        self.generation.run(TimedDenoiser(denoiser, self.device))

    def timestep(self) -> float:
        """Timestep of the call that is running."""
        running = self.generation.running
        return running.timestep if running is not None else 0.0

    # -- making ------------------------------------------------------------------------------------------------------

    def _dense_engine(self) -> None:
        ensure_dense_engine(self._state.run, self._reporter)

    def _build_for(self, backend: str) -> BuildConfig:
        recorded = self.build_config()
        if backend == recorded.backend:
            return recorded
        return BuildConfig(backend=backend, ranges=recorded.ranges, batch=recorded.batch)  # type: ignore[arg-type]

    def _pruned_state(self, config: PruneConfig, backend: str | None = None) -> RunState:
        """The run that holds these masks: this one, or one of the sweep's, calibrated like it and pruned."""
        own_backend = self.build_config().backend
        backend = backend or own_backend
        key = self.key(config)
        if key == masks_key(self._own) and backend == own_backend:
            return self._state
        if (key, backend) not in self._states:
            name = key if backend == "onnxruntime" else f"{key}-{backend}"
            run = RunDirectory.create(_made(self._state.run.path / FOLDER / name), self._state.run.model)
            with run.lock():
                self._calibrate_like_this(run)
                prune(run, _recorded_config(run, key) or config, self._reporter)
            self._states[key, backend] = RunState.of(run)
        return self._states[key, backend]

    def _exported_state(self, config: PruneConfig, backend: str | None = None) -> RunState:
        state = self._pruned_state(config, backend)
        if state.run.path != self._state.run.path:
            export(state.run, self._export, "pruned", self._reporter)
        return state

    def _calibrate_like_this(self, run: RunDirectory) -> None:
        entry = self._state.calibration

        def link(scratch: Path) -> dict[str, Any]:
            for name in (AAS, CALLS):
                _link(self._state.run.path / name, scratch / name)
            return entry.facts

        run.perform(Manifest("calibrate", entry.inputs, entry.options, entry.versions), link, files=(AAS, CALLS))


def _made(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    return path


def _link(source: Path, target: Path) -> None:
    """The same bytes without a second copy, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _recorded_config(run: RunDirectory, key: str) -> PruneConfig | None:
    """What the sweep's run was pruned with before, if that gives the same masks: another α may have the same ones."""
    try:
        entry = run.require("masks")
    except ArtifactError:
        return None
    if masks_key(masks_of_run(run)) != key:
        return None
    return PruneConfig(**{**entry.options, "protect": tuple(entry.options["protect"])})
