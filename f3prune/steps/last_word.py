"""Whole videos: what a pruned model's differ by from the dense one's, on seeds that nothing was chosen by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from f3prune.calibration import Masks
from f3prune.core.errors import InputError
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.psnr import psnr
from f3prune.families import denoiser_component
from f3prune.pipelines.loading import pick_device, working_dtype
from f3prune.pipelines.pipeline_runs import Frames, run_prompt
from f3prune.steps._state import RunState
from f3prune.steps.refit import baked, refitted_if_possible

VIDEOS = 4
"""Of every candidate: few, for they are compared in pairs."""
HELD_OUT = 10_000
"""Added to the run's seed: calibration and refit use the seeds from the run's own on."""
EQUAL_DB = 99.0
"""PSNR that two videos without a difference count with."""


def video_psnr(
    state: RunState, candidates: Sequence[Masks], refit: int = 0, reporter: Reporter = SILENT
) -> list[float]:
    """Mean PSNR in dB of a few videos of each candidate against the dense model's; 0 where one is no number.

    Args:
        state: of the run.
        candidates: what is pruned.
        refit: generations that each candidate is refitted on first; 0 refits nothing.
        reporter: of progress.

    Raises:
        InputError: the pipeline gives no frames.
    """
    device = pick_device()
    dtype = working_dtype(state.source, device)
    with reporter.task("loading the pipeline"):
        pipeline: Any = state.load_pipeline(dtype, device)
    component = denoiser_component(pipeline)
    dense = getattr(pipeline, component)
    settings = replace(state.settings, seed=state.settings.seed + HELD_OUT)
    found = []
    with reporter.task("making videos of the best", total=VIDEOS * (len(candidates) + 1)) as advance:

        def draw(denoiser: nn.Module) -> list[Frames]:
            setattr(pipeline, component, denoiser)
            made = []
            for index in range(VIDEOS):
                frames = run_prompt(pipeline, settings, state.prompts[index % len(state.prompts)], index, state.family)
                if frames is None:
                    raise InputError(f"{type(pipeline).__name__} gave no frames")
                made.append(frames)
                advance()
            return made

        references = draw(dense)
        for chosen in candidates:
            masks = refitted_if_possible(state, chosen, refit, reporter)
            videos = draw(baked(state, masks, dtype, device))
            values = [psnr(one, other) for one, other in zip(references, videos, strict=True)]
            mean = math.fsum(min(value, EQUAL_DB) for value in values) / VIDEOS
            found.append(0.0 if math.isnan(mean) else mean)
    return found
