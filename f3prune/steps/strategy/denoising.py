"""A denoiser called in a loop, one denoising step after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from f3prune.calibration import Masks
from f3prune.core.captured_calls import CapturedCall, first_text_length
from f3prune.core.progress import Advance, Reporter
from f3prune.core.tensors import GRAPH_FILE
from f3prune.engines import BuildConfig, EngineDenoiser, EngineRecord, build_engine, open_session
from f3prune.engines.building import Progress
from f3prune.engines.check import Coupling, coupling
from f3prune.exporter import ExportConfig, export_denoiser
from f3prune.families import Family, denoiser_component, family_of
from f3prune.pipelines.loading import load_pipeline, pick_device, working_dtype
from f3prune.pipelines.memory import load_offloaded, place
from f3prune.pipelines.pipeline_runs import GenerationSettings, default_steps, run_prompt
from f3prune.pipelines.prompts import Prompt
from f3prune.pipelines.sources import ModelSource
from f3prune.steps.strategy._base import CalibrationJob, DenoisingLoop, GenerationStrategy, Measured


class DenoisingStrategy(GenerationStrategy):
    """See ``GenerationStrategy``."""

    has_steps = True
    one_graph = True
    frame_pairs = True
    lazy_export = True
    forward_arguments: ClassVar[Mapping[str, Any]] = {"return_dict": False}
    call = "denoiser call"
    unit = "denoiser call"
    timing = "one call of the denoiser on inputs recorded during calibration, all contestants in turn"

    def _measure_pipeline(self, job: CalibrationJob) -> Measured:
        loop = self._pipeline_loop(job.source, job.settings, job.reporter, job.offload)
        measured = job.calibrate_loop(loop)
        if len(measured.text_lengths) != 1:
            return measured
        # A pipeline that cuts padding off makes graphs for one length of prompt, which other prompts do not have.
        other = of_another_length(job.prompts[0])
        length = first_text_length(loop.denoiser, lambda: loop.denoise(other, 0, lambda: None))
        return measured if length is None else replace(measured, text_lengths=measured.text_lengths | {length})

    def _pipeline_loop(
        self, source: ModelSource, given: GenerationSettings, reporter: Reporter, offload: str = "none"
    ) -> DenoisingLoop:
        device = pick_device()
        with reporter.task("loading the pipeline"):
            pipeline = load_offloaded(source, working_dtype(source, device), device, offload)
        denoiser = getattr(pipeline, denoiser_component(pipeline))
        family = family_of(denoiser)
        settings = self.settings_of(pipeline, given)

        def denoise(prompt: Prompt, index: int, advance: Advance) -> None:
            run_prompt(pipeline, settings, prompt, index, family, on_step=advance, decode=False)

        assert settings.steps is not None  # settings_of fills it in
        return DenoisingLoop(denoiser, settings, denoise, settings.steps)

    def export(
        self,
        denoiser: nn.Module,
        calls: Sequence[CapturedCall],
        source: ModelSource,
        folder: Path,
        config: ExportConfig,
        metadata: Mapping[str, str],
    ) -> list[dict[str, Any]]:
        del source
        inputs = [call.on(torch.device("cpu"), torch.float32) for call in calls]
        return [export_denoiser(denoiser, inputs[0], folder, config, metadata, test_inputs=inputs[1:]).to_json()]

    def build(
        self,
        graphs: Path,
        folder: Path,
        pruned: Path,
        config: BuildConfig,
        masks_digest: str | None,
        progress: Progress,
    ) -> list[EngineRecord]:
        del pruned
        return [build_engine(graphs / GRAPH_FILE, folder, config, masks_digest, progress=progress)]

    @contextlib.contextmanager
    def open_engine(self, folders: Sequence[Path], config: Path, masks: Masks | None) -> Iterator[EngineDenoiser]:
        digest = masks.digest if masks is not None else None
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(open_session(folder, masks_digest=digest)) for folder in folders]
            if masks is None or len(sessions) == 1:
                yield EngineDenoiser(config, sessions[0])
            else:
                lows = [stage.timesteps[1] for stage in masks.stages]
                yield EngineDenoiser(config, list(zip(lows, sessions, strict=True)))

    def pipeline_with(self, source: ModelSource, engine: Any, device: torch.device, offload: str = "none") -> Any:
        skeleton = engine.__dict__["_skeleton"]
        pipeline = load_pipeline(source, working_dtype(source, device), denoiser=skeleton)
        component = denoiser_component(pipeline)
        setattr(pipeline, component, engine)
        place(pipeline, device, offload, keep=component)
        return pipeline

    def comparable(self, denoiser: nn.Module, source: ModelSource) -> nn.Module:
        del source
        return denoiser

    def couplings(
        self, denoisers: Mapping[str, nn.Module], family: Family, inputs: Mapping[str, Any]
    ) -> dict[str, Coupling]:
        grid = family.token_grid(next(iter(denoisers.values())), inputs)
        return {
            name: coupling(denoiser, family, inputs, grid, frames=perturbed_frames(grid.frames))
            for name, denoiser in denoisers.items()
        }

    def timed(self, denoiser: Any, call: CapturedCall) -> Callable[..., Any]:
        del call
        chosen: Callable[..., Any] = denoiser
        return chosen

    def settings_of(self, pipeline: Any, settings: GenerationSettings, steps: int | None = None) -> GenerationSettings:
        return replace(settings, steps=steps or settings.steps or default_steps(pipeline))

    def progress_total(self, pipeline: Any, settings: GenerationSettings) -> int:
        del pipeline
        assert settings.steps is not None
        return settings.steps


def of_another_length(prompt: Prompt) -> Prompt:
    """The same with the first word alone as text, or with one word more where there is only one."""
    words = prompt.text.split()
    return replace(prompt, text=words[0] if len(words) > 1 else f"{prompt.text} again")


def perturbed_frames(frames: int) -> list[int]:
    """The frames that the coupling test changes, one call each: at most four, first to last."""
    return sorted({round(k * (frames - 1) / 3) for k in range(4)})
