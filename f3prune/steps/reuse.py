"""Reuse: choose the denoising steps that are extrapolated instead of computed, by what generations lose."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import json_values, parse_json
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.engines.step_reuse import Recording, StepRecorder, StepReuse, candidates, choose, steps_to_skip
from f3prune.families import denoiser_component
from f3prune.pipelines.fidelity import fidelity
from f3prune.pipelines.pipeline_runs import Frames, GenerationSettings
from f3prune.pipelines.prompts import Prompt
from f3prune.steps._state import PACKAGES, RunState, need_pipeline
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.sessions import engine_pipeline, generate_frames

FILE = "reuse.json"
STEP = "reuse"
SAME_DB = 100.0
"""PSNR that stands for no difference at all."""


@dataclass(frozen=True)
class ReuseOptions:
    """How many steps to skip; None for settings takes what calibration used.

    Attributes:
        min_psnr: skip as many as keep the video so close to the same engine's without skipping, dB.
        skip: skip this share of the steps instead.
        prompt: what to measure on; None takes the first calibration prompt.
        steps, guidance, seed: of the generations that are measured, and of those that may use the result.
    """

    min_psnr: float = 35.0
    skip: float | None = None
    prompt: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raises ``InputError`` for a share that is none."""
        if self.skip is not None and not 0 < self.skip < 1:
            raise InputError(f"`skip` is {self.skip:g}: give a share of the steps between 0 and 1, e.g. 0.4")


@dataclass(frozen=True)
class Found:
    """A plan and what was measured with it.

    Attributes:
        plan: steps to skip.
        psnr: of the video against the same engine's without skipping, dB.
        tried: number of steps skipped and PSNR of every generation.
    """

    plan: StepReuse
    psnr: float
    tried: tuple[tuple[int, float], ...]


def reuse(run: RunDirectory, options: ReuseOptions, reporter: Reporter = SILENT) -> tuple[dict[str, Any], bool]:
    """Measure, choose, and keep the choice as ``reuse.json`` in the run, for ``generate``.

    Returns:
        The step's facts: ``steps``, ``skipped`` (indices), ``psnr``, ``tried``; and whether they were measured now.

    Raises:
        ArtifactError: an earlier step is missing, altered or stale.
        BackendError: the engine cannot run here.
        InputError: the model has no denoising steps, or no step can be skipped at that quality.
    """
    state = RunState.of(run)
    need_pipeline(state, "make the videos that show what skipping steps costs")
    if not state.strategy.has_steps:
        raise InputError(f"{state.family.title} draws token by token and has no denoising steps to skip")
    given = {name: value for name in ("steps", "guidance", "seed") if (value := getattr(options, name)) is not None}
    settings = replace(state.settings, **given)
    prompt = Prompt(options.prompt) if options.prompt else state.prompts[0]
    recipe = Manifest(
        STEP,
        {
            "calibrate": state.calibration.digest,
            BUILD_STEP["pruned"]: run.require_current(BUILD_STEP["pruned"]).digest,
            "pipeline": state.verified_pipeline_digest(),
        },
        {
            "min_psnr": options.min_psnr if options.skip is None else None,
            "skip": options.skip,
            "prompt": prompt.to_json(),
            "settings": json_values(settings),
        },
        package_versions(*PACKAGES),
    )

    def make(scratch: Path) -> dict[str, Any]:
        found = _measure(state, settings, prompt, options, reporter)
        (scratch / FILE).write_text(json.dumps(found.plan.to_json(), indent=1) + "\n", encoding="utf-8")
        return {
            "steps": len(found.plan.timesteps),
            "skipped": list(found.plan.skipped),
            "psnr": found.psnr,
            "tried": [list(item) for item in found.tried],
        }

    entry, made = run.perform(recipe, make, files=(FILE,))
    return entry.facts, made


def chosen(run: RunDirectory, settings: GenerationSettings) -> StepReuse:
    """The run's skipped steps, for generations with ``settings``.

    Raises:
        ArtifactError: they are missing, altered, or were measured on another engine.
        InputError: they were chosen for another number of steps.
    """
    entry = run.require(STEP)
    try:
        value = parse_json(run.content(STEP, FILE))
    except ValueError as error:
        raise ArtifactError(f"{run.path / FILE} is no JSON ({error}): run `{run.command(STEP)}` again") from error
    plan = StepReuse.from_json(value)
    recorded = entry.options["settings"].get("steps")
    if settings.steps != recorded:
        raise InputError(
            f"skipped steps were chosen for {recorded or len(plan.timesteps)} steps, and this is "
            f"{settings.steps or 'the default number'}: run `reuse(run={str(run.path)!r}, steps=N)` with yours first"
        )
    return plan


def _measure(
    state: RunState, settings: GenerationSettings, prompt: Prompt, options: ReuseOptions, reporter: Reporter
) -> Found:
    with engine_pipeline(state) as pipeline:
        component = denoiser_component(pipeline)
        denoiser = getattr(pipeline, component)

        def generated(description: str) -> Frames:
            return generate_frames(pipeline, state, settings, prompt, description, reporter)

        recorder = StepRecorder(denoiser, state.family.latents, state.family.channels)
        setattr(pipeline, component, recorder)
        reference = generated("recording a generation")
        setattr(pipeline, component, denoiser)
        try:
            recording = recorder.recording()
        except ValueError as error:
            raise InputError(f"no step of {state.source.spec} can be skipped: {error}") from error
        tried: list[tuple[int, float]] = []

        def quality(plan: StepReuse) -> float:
            denoiser.reuse_steps(plan)
            try:
                frames = generated(f"skipping {len(plan.skipped)} of {len(plan.timesteps)} steps")
            finally:
                denoiser.reuse_steps(None)
            found = fidelity(reference, frames).psnr
            tried.append((len(plan.skipped), SAME_DB if found is None else found))
            return tried[-1][1]

        if options.skip is not None:
            best = choose(recording, steps_to_skip(options.skip, len(recording.timesteps)), quality)
            if best is None:
                raise InputError(f"{options.skip:g} of {len(recording.timesteps)} steps cannot be skipped: skip fewer")
        else:
            best = most_within(recording, options.min_psnr, quality)
            if best is None:
                raise InputError(
                    f"no step can be skipped at {options.min_psnr:g} dB (skipping one gives "
                    f"{max((psnr for _, psnr in tried), default=0.0):.1f} dB): give a lower `min_psnr`"
                )
    return Found(*best, tuple(tried))


def most_within(
    recording: Recording, least: float, quality: Callable[[StepReuse], float]
) -> tuple[StepReuse, float] | None:
    """The most steps that can be skipped at a quality of at least ``least``, by bisection.

    Returns:
        A plan and its quality; None where skipping one step is too much.
    """
    low, high = 1, len(recording.timesteps)
    best: tuple[StepReuse, float] | None = None
    while low < high:
        middle = (low + high) // 2
        found = None
        for plan in candidates(recording, middle):
            if (measured := quality(plan)) >= least:
                found = (plan, measured)
                break
        if found is None:
            high = middle
        else:
            best, low = found, middle + 1
    return best
