"""What the steps do otherwise for a model that generates token by token (CogVideo): caches, two graphs, replays."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune import calibration
from f3prune.core.captured_calls import CapturedCall
from f3prune.core.errors import ArtifactError
from f3prune.core.json_files import read_json
from f3prune.core.progress import Reporter
from f3prune.engines.check import Coupling
from f3prune.engines.cogvideo import EngineCogVideo
from f3prune.exporter import ExportConfig, export_autoregressive
from f3prune.families import SiteKind, TokenGrid, family_of
from f3prune.models.cogvideo.cache import LayerCache
from f3prune.models.cogvideo.config import CogVideoConfig
from f3prune.models.cogvideo.decoding import replay
from f3prune.models.cogvideo.model import StepBiases
from f3prune.models.cogvideo.pipeline import CogVideoPipeline, CogVideoSettings
from f3prune.pipelines.loading import load_pipeline, pick_device, working_dtype
from f3prune.pipelines.pipeline_runs import GenerationSettings, run_prompt
from f3prune.pipelines.prompts import Prompt
from f3prune.pipelines.sources import ModelSource

MOST_CALLS = 4
FIRST = "first"
"""Below an engine or graph directory: the graphs that draw frame 0 without the temporal channel."""


def measure_pipeline(
    source: ModelSource,
    prompts: list[Prompt],
    settings: GenerationSettings,
    rows: int | None,
    sites: SiteKind,
    reporter: Reporter,
    metadata: Mapping[str, str],
) -> tuple[calibration.Calibration, list[CapturedCall], nn.Module]:
    """Generate a clip for every prompt, then measure attention over the finished sequences, guide included.

    In stage 1 a token's attention does not depend on later ones, so a pass over the finished sequence sees what every
    cached step saw.

    Returns:
        The calibration, the finished sequences as forward arguments (the first four), and the dense model.
    """
    device = pick_device()
    with reporter.task("loading the pipeline"):
        pipeline: CogVideoPipeline = load_pipeline(source, working_dtype(source, device), device)
    model: Any = pipeline.transformer
    family = family_of(model)
    sequences = []
    total = pipeline.count_tokens(settings.num_frames) * len(prompts)
    with reporter.task("generating", total=total) as advance:
        for index, prompt in enumerate(prompts):
            made = run_prompt(pipeline, settings, prompt, index, family, advance, decode=False, whole=True)
            sequences.append(pipeline.sequence(made))
    with reporter.task("calibrating", total=len(sequences)) as advance:

        def denoise() -> None:
            for sequence in sequences:
                model(**{name: tensor.to(device) for name, tensor in sequence.items()})
                advance()

        found = calibration.calibrate(model, denoise, rows=rows, seed=settings.seed, sites=sites, **metadata)
    calls = [CapturedCall(float(index), sequence) for index, sequence in enumerate(sequences[:MOST_CALLS])]
    return found, calls, model


def export_graphs(
    model: Any, source: ModelSource, folder: Path, config: ExportConfig, metadata: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Write ``prefill/`` and ``decode/`` below ``folder``, and ``first/`` where frame 0 has graphs of its own.

    Returns:
        What each graph is, as the step's facts hold it.
    """
    settings = sampling_of(source)
    count = settings.image_tokens
    separate = settings.first_frame == "spatial"
    result = export_autoregressive(
        model, folder, given_times(source, model.shape), config, metadata, image_tokens=count
    )
    found = list(result.to_dict().values())
    if separate:
        first = export_autoregressive(
            model, folder / FIRST, (), config, metadata, spatial_only=True, image_tokens=count
        )
        found += first.to_dict().values()
    return found


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
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return CogVideoConfig(**{field.name: values[field.name] for field in fields(CogVideoConfig)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder}/config.json is not CogVideo's ({error}): prune again") from error


def given_times(source: ModelSource, shape: CogVideoConfig) -> tuple[int, ...]:
    """Time index of the frames that generation is given: those stage 2 interpolates, a frame 0 of its own graphs."""
    if shape.stage == 2:
        return tuple(range(0, shape.frame_num, 2))
    return (0,) if sampling_of(source).first_frame == "spatial" else ()


@contextlib.contextmanager
def open_engine(folder: Path, shape: CogVideoConfig, masks_digest: str | None) -> Iterator[EngineCogVideo]:
    """The engine of a step's directory, with that of frame 0 where there is one."""
    with contextlib.ExitStack() as stack:
        first = None
        if (folder / FIRST).is_dir():
            first = stack.enter_context(EngineCogVideo.open(folder / FIRST, shape, masks_digest))
        engine = EngineCogVideo.open(folder, shape, masks_digest, first=first)
        yield stack.enter_context(engine)


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


def couplings(
    models: Mapping[str, nn.Module], inputs: Mapping[str, torch.Tensor], grid: TokenGrid
) -> dict[str, Coupling]:
    """Change the tokens of one frame at a time, and see which frames' logits change.

    Begin-of-image stays; every other slot gets the token of another slot of its frame.
    """
    text = int(inputs["text_mask"].shape[1])
    found = {}
    with torch.no_grad():
        for name, dense_or_pruned in models.items():
            model = FrameLogits(dense_or_pruned)
            base = model(**inputs)[0].unflatten(1, (grid.frames, -1)).double()
            response = []
            for frame in range(grid.frames):
                start = text + frame * grid.tokens_per_frame
                changed = inputs["tokens"].clone()
                changed[:, start + 1 : start + grid.tokens_per_frame] = changed[
                    :, start + 1 : start + grid.tokens_per_frame
                ].flip(1)
                moved = model(**{**inputs, "tokens": changed})[0].unflatten(1, (grid.frames, -1)).double()
                norms = (moved - base).flatten(2).norm(dim=(0, 2)) / base.norm()
                response.append([float(value) for value in norms])
            found[name] = Coupling(response)
    return found


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
