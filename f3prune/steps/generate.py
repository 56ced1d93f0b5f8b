"""Generate: a prompt in, a video out of the unmodified pipeline with the engine in the denoiser's place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from f3prune.core.errors import InputError
from f3prune.core.json_values import json_values
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.engines import StepReuse
from f3prune.families import denoiser_component
from f3prune.pipelines.fidelity import fidelity
from f3prune.pipelines.loading import pick_device, working_dtype
from f3prune.pipelines.memory import encode_once
from f3prune.pipelines.pipeline_runs import Frames, GenerationSettings
from f3prune.pipelines.prompts import Prompt
from f3prune.pipelines.video import check_output, contact_sheet, png_bytes, write_video
from f3prune.steps._state import PACKAGES, RunState, need_pipeline
from f3prune.steps.build import STEP as BUILD_STEP
from f3prune.steps.reuse import chosen
from f3prune.steps.sessions import engine_pipeline, generate_frames

VIDEO, DENSE_VIDEO, SHEET = "video.mp4", "video-dense.mp4", "frames.png"


@dataclass(frozen=True)
class GenerateOptions:
    """What to generate; None takes what calibration used.

    Attributes:
        prompt: text.
        image: conditioning image, for pipelines that need one.
        steps, guidance, seed, latents: of the pipeline call.
        backend: the engine must have been built for it; None does not ask.
        reuse: skip the steps that ``f3prune reuse`` chose.
        negative: negative prompt; None takes the pipeline's own.
        offload: where the weights of the pipeline's other models are, see ``f3prune.core.choices.OFFLOADS``. Text
            encoders leave memory once the prompt is encoded, whatever it is.
    """

    prompt: str
    image: Path | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    backend: str | None = None
    latents: str | None = None
    reuse: bool = False
    negative: str | None = None
    offload: str = "none"


def generate(
    run: RunDirectory, options: GenerateOptions, output: Path, reporter: Reporter = SILENT
) -> tuple[list[Path], Frames]:
    """Generate one video and write it to ``output`` (``.mp4``, ``.gif``, ``.png`` or a directory).

    Returns:
        The files, and the frames ``f h w 3`` in [0, 1].

    Raises:
        ArtifactError: an earlier step is missing, altered or stale.
        BackendError: the engine cannot run here.
        InputError: the model is a denoiser alone, or takes no such input.
    """
    check_output(output)
    if not options.prompt.strip():
        raise InputError("`prompt` is empty: say what the video shows")
    state = RunState.of(run)
    need_pipeline(state, "make a video")
    settings = settings_of(state, options)
    plan = chosen(run, settings) if options.reuse else None
    prompt = Prompt(options.prompt, options.image, options.negative)
    frames = _with_engine(state, settings, prompt, options.backend, reporter, plan, options.offload)
    return write_video(frames, output), frames


def settings_of(state: RunState, options: GenerateOptions) -> GenerationSettings:
    """Calibration's settings with what was given on top; sizes stay, the engine was built for them."""
    given = {name: getattr(options, name) for name in ("steps", "guidance", "seed", "latents")}
    return replace(state.settings, **{name: value for name, value in given.items() if value is not None})


def generate_into_run(
    run: RunDirectory, options: GenerateOptions, reporter: Reporter = SILENT
) -> tuple[Manifest, bool]:
    """Write ``video.mp4`` (pruned, engine), ``video-dense.mp4`` and ``frames.png`` (dense above pruned) into the run.

    Both videos come of the same prompt, seed and settings; the dense one of PyTorch.

    Returns:
        The step's manifest entry, whose facts hold the fidelity to the dense video, and whether it was made now.
    """
    state = RunState.of(run)
    need_pipeline(state, "make a video")
    settings = settings_of(state, options)
    prompt = Prompt(options.prompt, options.image, options.negative)
    recipe = Manifest(
        "generate",
        {
            "calibrate": state.calibration.digest,
            BUILD_STEP["pruned"]: run.require_current(BUILD_STEP["pruned"]).digest,
            "pipeline": state.verified_pipeline_digest(),
        },
        {"prompt": prompt.to_json(), "settings": json_values(settings)},
        package_versions(*PACKAGES, "imageio-ffmpeg"),
    )
    if (found := run.up_to_date(recipe)) is not None:
        return found, False

    def make(scratch: Path) -> dict[str, Any]:
        pruned = _with_engine(state, settings, prompt, options.backend, reporter)
        dense = _dense(state, settings, prompt, reporter)
        write_video(pruned, scratch / VIDEO)
        write_video(dense, scratch / DENSE_VIDEO)
        rows = [("dense model (PyTorch)", dense), ("pruned model (engine)", pruned)]
        (scratch / SHEET).write_bytes(png_bytes(contact_sheet(rows)))
        return {
            "prompt": prompt.to_json(),
            "settings": json_values(settings),
            "frames": int(pruned.shape[0]),
            "height": int(pruned.shape[1]),
            "width": int(pruned.shape[2]),
            "fidelity": json_values(fidelity(dense, pruned)),
        }

    return run.perform(recipe, make, files=(VIDEO, DENSE_VIDEO, SHEET))


def _with_engine(
    state: RunState,
    settings: GenerationSettings,
    prompt: Prompt,
    backend: str | None,
    reporter: Reporter,
    plan: StepReuse | None = None,
    offload: str = "none",
) -> Frames:
    with engine_pipeline(state, "pruned", backend, offload) as pipeline:
        encode_once(pipeline)
        if plan is not None:
            getattr(pipeline, denoiser_component(pipeline)).reuse_steps(plan)
        return generate_frames(pipeline, state, settings, prompt, "generating with the engine", reporter)


def _dense(state: RunState, settings: GenerationSettings, prompt: Prompt, reporter: Reporter) -> Frames:
    device = pick_device()
    pipeline = state.load_pipeline(working_dtype(state.source, device), device)
    encode_once(pipeline)
    return generate_frames(pipeline, state, settings, prompt, "generating with the dense model", reporter)
