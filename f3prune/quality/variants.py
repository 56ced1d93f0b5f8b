"""The variants of a model that are compared, each as the pipeline that generates with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from f3prune.calibration import Masks
from f3prune.core.errors import InputError
from f3prune.core.json_values import json_values
from f3prune.core.progress import SILENT, Reporter
from f3prune.families import denoiser_component
from f3prune.pipelines.loading import pick_device, working_dtype
from f3prune.pipelines.pipeline_runs import Frames, run_prompt
from f3prune.quality.samples import Sample
from f3prune.quality.video_store import VideoStore
from f3prune.steps._state import RunState
from f3prune.steps.refit import baked
from f3prune.steps.sessions import engine_pipeline

Runner = Literal["engine", "torch"]


@dataclass(frozen=True)
class Variant:
    """What generates.

    Attributes:
        masks: what is pruned; None is the dense model.
        runner: ``torch`` bakes the masks in memory; ``engine`` takes the engines that the run has.
    """

    masks: Masks | None
    runner: Runner = "torch"


@contextlib.contextmanager
def pipeline_of(state: RunState, variant: Variant) -> Iterator[Any]:
    """The pipeline of the run's model with the variant's denoiser in it.

    Raises:
        ArtifactError, BackendError: an engine is missing, stale, or does not run here.
    """
    if variant.runner == "engine":
        with engine_pipeline(state, "dense" if variant.masks is None else "pruned") as pipeline:
            yield pipeline
        return
    device = pick_device()
    dtype = working_dtype(state.source, device)
    pipeline = state.load_pipeline(dtype, device)
    if variant.masks is not None:
        setattr(pipeline, denoiser_component(pipeline), baked(state, variant.masks, dtype, device))
    yield pipeline


def recipe_of(state: RunState, variant: Variant, samples: Sequence[Sample]) -> dict[str, Any]:
    """What the variant's videos are made from, for ``VideoStore``."""
    return {
        "source": state.calibration.inputs["source"],
        "pipeline": state.verified_pipeline_digest(),
        "masks": None if variant.masks is None else variant.masks.digest,
        "runner": variant.runner,
        "settings": json_values(state.settings),
        "samples": [sample.to_json() for sample in samples],
    }


def generate_missing(
    state: RunState,
    variant: Variant,
    samples: Sequence[Sample],
    store: VideoStore,
    description: str,
    reporter: Reporter = SILENT,
    on_video: Callable[[Frames], None] = lambda frames: None,
) -> None:
    """Generate the videos that the store lacks; ``on_video`` sees each before it is kept.

    Raises:
        InputError: the pipeline refuses the settings, or gives no frames.
    """
    missing = store.missing()
    if not missing:
        return
    with reporter.task(description, total=len(samples)) as advance:
        for _ in range(len(samples) - len(missing)):
            advance()
        with pipeline_of(state, variant) as pipeline:
            for number in missing:
                sample = samples[number]
                settings = replace(state.settings, seed=sample.seed)
                frames = run_prompt(pipeline, settings, sample.prompt, 0, state.family)
                if frames is None:
                    raise InputError(f"{type(pipeline).__name__} gave no frames")
                on_video(frames)
                store.add(number, frames)
                advance()
