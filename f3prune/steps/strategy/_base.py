"""What every way of generating has to answer. Strategies know no step; steps ask their run's strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from f3prune import calibration
from f3prune.calibration import Masks
from f3prune.core.captured_calls import Capture, CapturedCall
from f3prune.core.progress import Advance, Reporter
from f3prune.engines import BuildConfig, EngineRecord
from f3prune.engines.building import Progress
from f3prune.engines.check import Coupling
from f3prune.exporter import ExportConfig
from f3prune.families import Family, LatentShape, SiteKind, family_of
from f3prune.pipelines.loading import load_denoiser, pick_device, working_dtype
from f3prune.pipelines.memory import check_offload, lazy, on_device
from f3prune.pipelines.pipeline_runs import GenerationSettings, check_latent_size, mapped_errors
from f3prune.pipelines.prompts import Prompt
from f3prune.pipelines.sources import ModelSource

SYNTHETIC_STEPS = 10
"""Timesteps of a denoiser alone when nobody says otherwise."""


@dataclass(frozen=True)
class CalibrationJob:
    """What to measure.

    Attributes:
        source: MODEL.
        prompts: one generation each; only their number counts for a denoiser alone.
        settings: of the generations, as far as they were given.
        rows: sample so many query tokens per frame; None measures all.
        sites: see ``Family.find_sites``.
        reporter: of progress.
        metadata: settings → provenance that goes into ``aas.safetensors``.
        offload: where weights are meanwhile, see ``f3prune.core.choices.OFFLOADS``.
    """

    source: ModelSource
    prompts: Sequence[Prompt]
    settings: GenerationSettings
    rows: int | None
    sites: SiteKind
    reporter: Reporter
    metadata: Callable[[GenerationSettings], Mapping[str, str]]
    offload: str = "none"

    def calibrate(
        self, denoiser: nn.Module, settings: GenerationSettings, denoise: Callable[[], None]
    ) -> calibration.Calibration:
        """Frame mass of what ``denoise`` makes ``denoiser`` compute."""
        return calibration.calibrate(
            denoiser, denoise, rows=self.rows, seed=settings.seed, sites=self.sites, **self.metadata(settings)
        )

    def calibrate_loop(self, loop: DenoisingLoop) -> Measured:
        """Frame mass and example calls of a denoising loop for every prompt."""
        capture = Capture(loop.denoiser, loop.steps)
        with self.reporter.task("calibrating", total=loop.steps * len(self.prompts)) as advance:

            def denoise_all() -> None:
                with capture.recording():
                    for index, prompt in enumerate(self.prompts):
                        loop.denoise(prompt, index, advance)

            found = self.calibrate(loop.denoiser, loop.settings, denoise_all)
        return Measured(found, capture.calls, loop.denoiser, loop.settings, capture.text_lengths)


@dataclass(frozen=True)
class DenoisingLoop:
    """What makes the dense model compute what a generation computes.

    Attributes:
        denoiser: the dense one, which the loop calls.
        settings: with the number of steps.
        denoise: generates for a prompt; ``index`` is added to the seed. Advances the progress once per step.
        steps: of one generation.
    """

    denoiser: nn.Module
    settings: GenerationSettings
    denoise: Callable[[Prompt, int, Advance], None]
    steps: int


@dataclass(frozen=True)
class Measured:
    """What a calibration gave.

    Attributes:
        calibration: frame mass of every site.
        calls: example calls of the denoiser.
        denoiser: the dense one.
        settings: of the generations, all that is known filled in.
        text_lengths: numbers of text tokens over all calls of a denoising loop.
    """

    calibration: calibration.Calibration
    calls: list[CapturedCall]
    denoiser: nn.Module
    settings: GenerationSettings
    text_lengths: Set[int] = frozenset()


class GenerationStrategy(ABC):
    """A way of generating.

    Attributes:
        has_steps: a generation is a loop of denoising steps, each a call of the denoiser's forward and nothing else.
        one_graph: the denoiser is one graph that keeps nothing from call to call; otherwise it has a graph to start and
            one to go on with, and caches.
        frame_pairs: single pairs of frames can be pruned.
        lazy_export: export reads weights of a model that holds none.
        forward_arguments: what a forward of the denoiser in PyTorch takes beside the recorded arguments.
        call: what one call with recorded arguments is.
        unit: what ``timed`` calls.
        timing: how, for the reader of a table.
    """

    has_steps: ClassVar[bool]
    one_graph: ClassVar[bool]
    frame_pairs: ClassVar[bool]
    lazy_export: ClassVar[bool]
    forward_arguments: ClassVar[Mapping[str, Any]]
    call: ClassVar[str]
    unit: ClassVar[str]
    timing: ClassVar[str]

    def measure(self, job: CalibrationJob) -> Measured:
        """Generate for every prompt, and measure frame mass.

        Raises:
            InputError: the settings do not suit the model.
        """
        return self._measure_pipeline(job) if job.source.kind == "pipeline" else self._measure_denoiser(job)

    @abstractmethod
    def _measure_pipeline(self, job: CalibrationJob) -> Measured:
        """``measure`` of a whole pipeline."""

    def _measure_denoiser(self, job: CalibrationJob) -> Measured:
        """``measure`` of a denoiser alone, on seeded inputs."""
        return job.calibrate_loop(self._denoiser_loop(job.source, job.settings, job.reporter, job.offload))

    def loop(
        self, source: ModelSource, settings: GenerationSettings, reporter: Reporter, offload: str = "none"
    ) -> DenoisingLoop:
        """The dense model's generations, on the device that is to be had.

        Raises:
            InputError: the settings do not suit the model.
        """
        make = self._pipeline_loop if source.kind == "pipeline" else self._denoiser_loop
        return make(source, settings, reporter, offload)

    @abstractmethod
    def _pipeline_loop(
        self, source: ModelSource, given: GenerationSettings, reporter: Reporter, offload: str = "none"
    ) -> DenoisingLoop:
        """``loop`` of a whole pipeline."""

    def _denoiser_loop(
        self, source: ModelSource, given: GenerationSettings, reporter: Reporter, offload: str = "none"
    ) -> DenoisingLoop:
        """``loop`` of a denoiser alone: calls on seeded inputs."""
        device = pick_device()
        with reporter.task("loading the denoiser"):
            check_offload(offload, device)
            on_cpu = load_denoiser(source, working_dtype(source, device), lazy=lazy(offload, device))
            denoiser = on_device(on_cpu, device, offload)
        config: Any = denoiser.config
        check_latent_size(config, given)
        default = family_of(denoiser).default_shape(config)
        shape = LatentShape(
            given.num_frames or default.frames, given.height or default.height, given.width or default.width
        )
        steps = given.steps or SYNTHETIC_STEPS
        settings = replace(given, steps=steps, num_frames=shape.frames, height=shape.height, width=shape.width)

        def denoise(prompt: Prompt, index: int, advance: Advance) -> None:
            del prompt
            with mapped_errors(f"{type(denoiser).__name__} at {shape}"):
                calibration.denoise_synthetic(
                    denoiser, shape, steps, seed=settings.seed + index * steps, on_step=lambda _: advance()
                )

        return DenoisingLoop(denoiser, settings, denoise, steps)

    @abstractmethod
    def export(
        self,
        denoiser: nn.Module,
        calls: Sequence[CapturedCall],
        source: ModelSource,
        folder: Path,
        config: ExportConfig,
        metadata: Mapping[str, str],
    ) -> list[dict[str, Any]]:
        """Write the graphs of a denoiser.

        Args:
            denoiser: dense or pruned, on the CPU.
            calls: recorded ones: the first to trace with, the others to test the graph with.
            source: MODEL.
            folder: where they go; exists.
            config: options.
            metadata: further properties of the graphs.

        Returns:
            What each graph is, as the step's facts hold it.

        Raises:
            ExportError: the graph could not be exported, or disagrees with PyTorch.
        """

    @abstractmethod
    def build(
        self,
        graphs: Path,
        folder: Path,
        pruned: Path,
        config: BuildConfig,
        masks_digest: str | None,
        progress: Progress,
    ) -> list[EngineRecord]:
        """Build the engines of what ``export`` wrote.

        Args:
            graphs: ``export``'s folder.
            folder: where engines go.
            pruned: directory of the pruned denoiser.
            config: options.
            masks_digest: of the masks that the graphs were pruned with.
            progress: called with the share that is done and what is being done.

        Raises:
            ArtifactError, BackendError, BuildError: see ``f3prune.engines.build_engine``.
        """

    @abstractmethod
    def open_engine(self, folders: Sequence[Path], config: Path, masks: Masks | None) -> AbstractContextManager[Any]:
        """A stand-in for the denoiser that runs on engines, for as long as the context lasts.

        Args:
            folders: what ``build`` wrote, one for every stage.
            config: directory of the denoiser's ``config.json``.
            masks: what they were pruned with; None for the dense model.

        Raises:
            ArtifactError, BackendError: see ``f3prune.engines.open_session``.
        """

    @abstractmethod
    def pipeline_with(self, source: ModelSource, engine: Any, device: torch.device, offload: str = "none") -> Any:
        """The pipeline of MODEL with an ``open_engine`` in the denoiser's place."""

    @abstractmethod
    def comparable(self, denoiser: nn.Module, source: ModelSource) -> nn.Module:
        """A denoiser in PyTorch, so that it answers what an engine answers to the same recorded arguments."""

    @abstractmethod
    def couplings(
        self, denoisers: Mapping[str, nn.Module], family: Family, inputs: Mapping[str, Any]
    ) -> dict[str, Coupling]:
        """Which frames of the denoisers' answers hear of a change in which frame of the recorded ``inputs``."""

    @abstractmethod
    def timed(self, denoiser: Any, call: CapturedCall) -> Callable[..., Any]:
        """What to time of a denoiser or its engine, called with the arguments of a recorded call."""

    @abstractmethod
    def settings_of(self, pipeline: Any, settings: GenerationSettings, steps: int | None = None) -> GenerationSettings:
        """``settings`` with the number of denoising steps: ``steps``, the settings' own, or the pipeline's default."""

    @abstractmethod
    def progress_total(self, pipeline: Any, settings: GenerationSettings) -> int:
        """How often ``run_prompt`` reports progress in a generation with ``settings_of``'s settings."""
