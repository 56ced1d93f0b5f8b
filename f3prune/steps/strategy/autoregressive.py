"""A model that draws token after token (CogVideo): two graphs, caches that live from call to call, replays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from f3prune.calibration import Masks
from f3prune.core.captured_calls import CapturedCall
from f3prune.core.errors import ArtifactError
from f3prune.core.json_values import parse_json, read_json
from f3prune.core.places import read_regular
from f3prune.core.progress import Advance, Reporter
from f3prune.engines import BuildConfig, EngineRecord
from f3prune.engines.building import Progress
from f3prune.engines.check import Coupling
from f3prune.engines.cogvideo import EngineCogVideo, build_autoregressive
from f3prune.exporter import ExportConfig, export_autoregressive
from f3prune.families import Family, family_of
from f3prune.models.cogvideo.cache import LayerCache
from f3prune.models.cogvideo.config import CogVideoConfig
from f3prune.models.cogvideo.decoding import replay
from f3prune.models.cogvideo.model import StepBiases
from f3prune.models.cogvideo.pipeline import CogVideoPipeline, CogVideoSettings
from f3prune.pipelines.loading import load_pipeline, pick_device, working_dtype
from f3prune.pipelines.memory import check_offload, load_offloaded
from f3prune.pipelines.pipeline_runs import GenerationSettings, run_prompt
from f3prune.pipelines.prompts import Prompt
from f3prune.pipelines.sources import ModelSource
from f3prune.steps.strategy._base import CalibrationJob, DenoisingLoop, GenerationStrategy, Measured

MOST_CALLS = 4
FIRST = "first"
"""Below an engine or graph directory: the graphs that draw frame 0 without the temporal channel."""


class AutoregressiveStrategy(GenerationStrategy):
    """See ``GenerationStrategy``. A call with recorded arguments is a pass over a finished sequence."""

    has_steps = False
    one_graph = False
    frame_pairs = False
    lazy_export = False
    forward_arguments: ClassVar[Mapping[str, Any]] = {}
    call = "pass over a clip"
    unit = "token"
    timing = "one token of the last frame with full caches, all contestants in turn"

    def _measure_pipeline(self, job: CalibrationJob) -> Measured:
        """Generate a clip for every prompt, then measure attention over the finished sequences, guide included.

        In stage 1 a token's attention does not depend on later ones, so a pass over the finished sequence sees what
        every cached step saw.
        """
        device = pick_device()
        with job.reporter.task("loading the pipeline"):
            dtype = working_dtype(job.source, device)
            pipeline: CogVideoPipeline = load_offloaded(job.source, dtype, device, job.offload)
        model: Any = pipeline.transformer
        family = family_of(model)
        sequences = []
        total = self.progress_total(pipeline, job.settings) * len(job.prompts)
        with job.reporter.task("generating", total=total) as advance:
            for index, prompt in enumerate(job.prompts):
                made = run_prompt(pipeline, job.settings, prompt, index, family, advance, decode=False, whole=True)
                sequences.append(pipeline.sequence(made))
        with job.reporter.task("calibrating", total=len(sequences)) as advance:

            def denoise() -> None:
                for sequence in sequences:
                    model(**{name: tensor.to(device) for name, tensor in sequence.items()})
                    advance()

            found = job.calibrate(model, job.settings, denoise)
        calls = [CapturedCall(float(index), sequence) for index, sequence in enumerate(sequences[:MOST_CALLS])]
        return Measured(found, calls, model, job.settings)

    def _pipeline_loop(
        self, source: ModelSource, given: GenerationSettings, reporter: Reporter, offload: str = "none"
    ) -> DenoisingLoop:
        """Clips are generated first; what the model computes is then a pass over the finished sequence."""
        device = pick_device()
        with reporter.task("loading the pipeline"):
            pipeline: CogVideoPipeline = load_pipeline(source, working_dtype(source, device), device)
        model: Any = pipeline.transformer
        family = family_of(model)

        def denoise(prompt: Prompt, index: int, advance: Advance) -> None:
            made = run_prompt(pipeline, given, prompt, index, family, advance, decode=False, whole=True)
            with torch.no_grad():
                model(**{name: tensor.to(device) for name, tensor in pipeline.sequence(made).items()})

        return DenoisingLoop(model, given, denoise, self.progress_total(pipeline, given))

    def export(
        self,
        denoiser: nn.Module,
        calls: Sequence[CapturedCall],
        source: ModelSource,
        folder: Path,
        config: ExportConfig,
        metadata: Mapping[str, str],
    ) -> list[dict[str, Any]]:
        """Write ``prefill/`` and ``decode/`` below ``folder``, and ``first/`` where frame 0 has graphs of its own."""
        del calls
        model: Any = denoiser
        sampling = sampling_of(source)
        times, count = given_times(sampling, model.shape), sampling.image_tokens
        made = [export_autoregressive(model, folder, times, config, metadata, image_tokens=count)]
        if sampling.first_frame == "spatial":
            first = folder / FIRST
            made.append(
                export_autoregressive(model, first, (), config, metadata, spatial_only=True, image_tokens=count)
            )
        return [result for export in made for result in export.to_json().values()]

    def build(
        self,
        graphs: Path,
        folder: Path,
        pruned: Path,
        config: BuildConfig,
        masks_digest: str | None,
        progress: Progress,
    ) -> list[EngineRecord]:
        shape = shape_of(pruned)
        records = build_autoregressive(graphs, folder, shape, config, masks_digest, progress=progress)
        first = graphs / FIRST
        alone = build_autoregressive(first, folder / FIRST, shape, config, masks_digest, 1) if first.is_dir() else {}
        return [*records.values(), *alone.values()]

    @contextlib.contextmanager
    def open_engine(self, folders: Sequence[Path], config: Path, masks: Masks | None) -> Iterator[EngineCogVideo]:
        shape, digest, folder = shape_of(config), masks.digest if masks is not None else None, folders[0]
        with contextlib.ExitStack() as stack:
            first = None
            if (folder / FIRST).is_dir():
                first = stack.enter_context(EngineCogVideo.open(folder / FIRST, shape, digest))
            yield stack.enter_context(EngineCogVideo.open(folder, shape, digest, first=first))

    def pipeline_with(self, source: ModelSource, engine: Any, device: torch.device, offload: str = "none") -> Any:
        check_offload(offload, device)
        return load_pipeline(source, working_dtype(source, device), device, engine)

    def comparable(self, denoiser: nn.Module, source: ModelSource) -> nn.Module:
        model: Any = denoiser
        sampling = sampling_of(source)
        return FrameLogits(model, len(given_times(sampling, model.shape)), sampling.image_tokens)

    def couplings(
        self, denoisers: Mapping[str, nn.Module], family: Family, inputs: Mapping[str, Any]
    ) -> dict[str, Coupling]:
        """Change the tokens of one frame at a time, and see which frames' logits change.

        Begin-of-image stays; every other slot gets the token of another slot of its frame.
        """
        grid = family.token_grid(next(iter(denoisers.values())), inputs)
        text = int(inputs["text_mask"].shape[1])
        found = {}
        with torch.no_grad():
            for name, denoiser in denoisers.items():
                model = FrameLogits(denoiser)
                base = model(**inputs)[0].unflatten(1, (grid.frames, -1)).double()
                response = []
                for frame in range(grid.frames):
                    first = text + frame * grid.tokens_per_frame + 1
                    last = first + grid.tokens_per_frame - 1
                    changed = inputs["tokens"].clone()
                    changed[:, first:last] = changed[:, first:last].flip(1)
                    moved = model(**{**inputs, "tokens": changed})[0].unflatten(1, (grid.frames, -1)).double()
                    norms = (moved - base).flatten(2).norm(dim=(0, 2)) / base.norm()
                    response.append([float(value) for value in norms])
                found[name] = Coupling(response)
        return found

    def timed(self, denoiser: Any, call: CapturedCall) -> Callable[..., Any]:
        tokens, text_mask = call.arguments["tokens"], call.arguments["text_mask"]
        return OneToken(denoiser, tokens.shape[0], text_mask.shape[1])

    def settings_of(self, pipeline: Any, settings: GenerationSettings, steps: int | None = None) -> GenerationSettings:
        del pipeline, steps
        return settings

    def progress_total(self, pipeline: Any, settings: GenerationSettings) -> int:
        total: int = pipeline.count_tokens(settings.num_frames)
        return total


def sampling_of(source: ModelSource) -> CogVideoSettings:
    """How the pipeline samples; the defaults for a model alone."""
    if source.kind != "pipeline":
        return CogVideoSettings()
    return CogVideoSettings.read(read_json(source.path / "model_index.json"))


def shape_of(folder: Path) -> CogVideoConfig:
    """Hyperparameters from a ``config.json``.

    Raises:
        ArtifactError: it is missing or of another class.
    """
    try:
        values = parse_json(read_regular(folder / "config.json"))
        return CogVideoConfig(**{field.name: values[field.name] for field in fields(CogVideoConfig)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder}/config.json is not CogVideo's ({error}): run `prune(...)` again") from error


def given_times(sampling: CogVideoSettings, shape: CogVideoConfig) -> tuple[int, ...]:
    """Time index of the frames that generation is given: those stage 2 interpolates, a frame 0 of its own graphs."""
    if shape.stage == 2:
        return tuple(range(0, shape.frame_num, 2))
    return (0,) if sampling.first_frame == "spatial" else ()


class FrameLogits(nn.Module):
    """A CogVideo in PyTorch, called like an engine's replay: whole sequence in, logits ``b (f F) v`` of frames out.

    Attributes:
        model: the CogVideo.
        given: frames at the start that the engine is given and makes no logits of.
        image_tokens: logits of the first so many tokens only; None for all.
    """

    def __init__(self, model: nn.Module, given: int = 0, image_tokens: int | None = None) -> None:
        super().__init__()
        self.model: Any = model
        self.given = given
        self.image_tokens = image_tokens

    def forward(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        text_mask: torch.Tensor,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """See ``CogVideo.forward``."""
        del return_dict
        if self.given and self.model.shape.stage == 2:
            # The original's cached inference differs from a pass over the whole sequence, and engines follow it.
            return (replay(self.model, tokens, text_mask, self.given)[..., : self.image_tokens],)
        first = text_mask.shape[1] + self.given * self.model.shape.frame_len
        return (self.model(tokens, position_ids, text_mask)[:, first:, : self.image_tokens],)


class OneToken:
    """One decoding step at the middle of the last frame, caches full: what ``bench`` times."""

    def __init__(self, model: Any, batch: int, text: int) -> None:
        """``model`` is a CogVideo or its engine; ``text`` text slots."""
        shape: CogVideoConfig = model.shape
        frames, per_frame = shape.frame_num, shape.frame_len
        frame_slots, video_slots = text + per_frame, text + frames * per_frame
        caches: list[LayerCache] = model.empty_caches(batch, frame_slots, video_slots)
        slot, last = per_frame // 2, shape.frame_num - 1

        def bias(slots: int) -> torch.Tensor:
            return caches[0].spatial_key.new_zeros(batch, 1, 1, slots)

        frame, video = bias(frame_slots), bias(video_slots)
        self._step = model.bind(caches)
        device = caches[0].spatial_key.device
        self._arguments = (
            torch.zeros(batch, dtype=torch.int64, device=device),
            torch.tensor([shape.frame_positions(last)[slot]], device=device),
            torch.tensor([text + slot], device=device),
            torch.tensor([text + last * per_frame + slot], device=device),
            StepBiases(frame, video, video, frame, frame),
        )

    def __call__(self, **ignored: Any) -> torch.Tensor:
        """Logits ``b v``."""
        return self._step(*self._arguments)
