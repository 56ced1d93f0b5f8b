"""Tune: an image pipeline and one clip in, a video pipeline and the clip's start latents out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from f3prune.core.atomic_files import atomic_directory, canonical_json, sha256_file, sha256_text
from f3prune.core.errors import InputError
from f3prune.core.manifest import package_versions
from f3prune.core.places import absolute, refuse_to_replace
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.quiet import silence_imported
from f3prune.models.tune_a_video.clips import read_clip
from f3prune.models.tune_a_video.inversion import invert
from f3prune.models.tune_a_video.pipeline import TuneAVideoPipeline
from f3prune.models.tune_a_video.tuning import Tuner, TuningConfig
from f3prune.pipelines.image_base import check_base, inflated
from f3prune.pipelines.loading import pick_device
from f3prune.pipelines.sources import ModelSource, resolve
from f3prune.steps._state import PACKAGES

RECORD, PROMPTS = "tuning.json", "prompts.txt"


@dataclass(frozen=True)
class TuneOptions:
    """What to tune on what, and how.

    Attributes:
        video: a file with the clip.
        prompt: what the clip shows.
        base: MODEL of a Stable Diffusion pipeline, see ``f3prune.pipelines.sources.resolve``.
        steps, learning_rate: of the optimiser.
        frames, start, rate: which frames of the video.
        size: height and width in pixels; None takes the base's own.
        inversion_steps: of the DDIM inversion; sampling from its latents should take as many.
        seed: of everything random.
        checkpoint_every: steps between two checkpoints.
        resume: go on from the checkpoint that an interrupted tuning left.
        variant: of the base's weight files.
    """

    video: Path
    prompt: str
    base: str
    steps: int = 500
    learning_rate: float = 3e-5
    frames: int = 8
    start: int = 0
    rate: int = 1
    size: int | None = None
    inversion_steps: int = 50
    seed: int = 0
    checkpoint_every: int = 100
    resume: bool = False
    variant: str | None = None

    def recipe(self, source: ModelSource) -> str:
        """A digest of what a checkpoint depends on: everything but how long to tune and how often to save."""
        kept = {
            name: value
            for name, value in asdict(self).items()
            if name not in {"video", "base", "steps", "inversion_steps", "checkpoint_every", "resume", "variant"}
        }
        inputs = {"video": sha256_file(self.video), "unet": source.digest(), "rest": source.pipeline_digest()}
        return sha256_text(canonical_json({**kept, **inputs}))


def checkpoint_of(output: Path) -> Path:
    """Where an unfinished tuning keeps its state."""
    return output.with_name(f"{output.name}.tuning.safetensors")


def check_output(output: Path, resume: bool) -> None:
    """Refuse an output before any work is done.

    Raises:
        InputError: there is something, or a checkpoint that was not asked for, or none although one was.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise InputError(f"`output` {output} exists already: give a new directory, or remove this one")
    refuse_to_replace(absolute(output), folder=True)
    checkpoint = checkpoint_of(output)
    if resume and not checkpoint.is_file():
        raise InputError(f"`resume`: there is no checkpoint {checkpoint}: leave `resume` out to start")
    if not resume and checkpoint.exists():
        raise InputError(f"{checkpoint} is left from a tuning that was stopped: give `resume=True`, or remove the file")
    parent = output.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"`output` {output}: {parent} is a file, not a directory")


def tune(output: Path, options: TuneOptions, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Tune on one clip; ``output`` becomes a pipeline directory with the inverted latents and ``tuning.json``.

    Returns:
        What ``tuning.json`` holds.

    Raises:
        InputError: the video, the prompt, the base, a size or the output cannot be used.
        ArtifactError: the checkpoint is damaged, or was made from other inputs.
    """
    check_output(output, options.resume)
    if not options.prompt.strip():
        raise InputError("`prompt` is empty: say what the video shows")
    source = resolve(options.base, variant=options.variant)
    check_base(source)
    silence_imported()
    pipeline = inflated(source, options.seed, options.frames)
    pipeline.set_progress_bar_config(disable=True)
    size = _size(pipeline, options.size)
    clip = read_clip(options.video, options.frames, size, size, options.start, options.rate)
    pipeline.unet.register_to_config(sample_size=size // pipeline.vae_scale_factor)
    device = pick_device()
    pipeline.to(device)
    if device.type == "cuda":
        pipeline.unet.enable_gradient_checkpointing()
    with torch.no_grad():
        text, empty = pipeline.encode_prompt([options.prompt]), pipeline.encode_prompt([""])
    with reporter.task("encoding the clip"):
        mean, deviation = encode(pipeline, clip.to(device))
    config = TuningConfig(options.steps, options.learning_rate, seed=options.seed)
    tuner = Tuner(pipeline.unet, pipeline.scheduler, text, config)
    recipe, checkpoint = options.recipe(source), checkpoint_of(output)
    if options.resume:
        tuner.resume(checkpoint, recipe)
        if tuner.done > options.steps:
            raise InputError(f"{checkpoint} is {tuner.done} steps far: give `steps` of at least {tuner.done}")
    with reporter.task("tuning", total=options.steps) as advance:
        for _ in range(tuner.done):
            advance()
        tuner.run(mean, deviation, advance, checkpoint, options.checkpoint_every, recipe)
    pipeline.unet.eval().requires_grad_(False)
    with reporter.task("inverting the clip", total=options.inversion_steps) as advance:
        start, _, _ = tuner.draw(mean, deviation)
        scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        pipeline.inverted = invert(
            pipeline.unet, scheduler, start, empty, options.inversion_steps, lambda _: advance()
        ).cpu()
    record = _record(options, source, size, tuner)
    with reporter.task("saving"), atomic_directory(output) as folder:
        _save(pipeline.to("cpu"), folder, record)
    checkpoint.unlink(missing_ok=True)
    return record


@torch.no_grad()
def encode(pipeline: TuneAVideoPipeline, clip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (each ``1 c f h w``) of the scaled latents of a clip ``f 3 h w`` in [-1, 1]."""
    posteriors = [pipeline.vae.encode(frame[None]).latent_dist for frame in clip]
    scale = pipeline.vae.config.scaling_factor
    mean = torch.stack([posterior.mean[0] for posterior in posteriors], dim=1)
    deviation = torch.stack([posterior.std[0] for posterior in posteriors], dim=1)
    return scale * mean[None], scale * deviation[None]


def _size(pipeline: TuneAVideoPipeline, size: int | None) -> int:
    scale = pipeline.vae_scale_factor
    if size is None:
        own = pipeline.unet.config.sample_size
        if not isinstance(own, int):
            raise InputError(f"`size` is not given, and the base's own is {own}: give the edge in pixels, e.g. 512")
        return own * scale
    if size % scale:
        low = max(scale, size // scale * scale)
        raise InputError(f"`size` is {size}, expected a multiple of {scale}: try {low} or {low + scale}")
    return size


def _record(options: TuneOptions, source: ModelSource, size: int, tuner: Tuner) -> dict[str, Any]:
    tenth = max(1, len(tuner.losses) // 10)
    return {
        "base": {"model": source.spec, "denoiser": source.digest(), "rest": source.pipeline_digest()},
        "video": {"name": options.video.name, "sha256": sha256_file(options.video)},
        "prompt": options.prompt,
        "frames": {"count": options.frames, "start": options.start, "rate": options.rate, "size": size},
        "tuning": asdict(tuner.config),
        "trained_parameters": sum(value.numel() for value in tuner.trained.values()),
        "inversion_steps": options.inversion_steps,
        "loss": {
            "first_tenth": sum(tuner.losses[:tenth]) / tenth,
            "last_tenth": sum(tuner.losses[-tenth:]) / tenth,
        },
        "versions": package_versions(*PACKAGES, "imageio-ffmpeg"),
    }


def _save(pipeline: TuneAVideoPipeline, folder: Path, record: dict[str, Any]) -> None:
    pipeline.save_pretrained(folder)
    for config in folder.glob("*/config.json"):
        values = json.loads(config.read_text(encoding="utf-8"))
        values.pop("_name_or_path", None)  # where the base was loaded from, which means nothing elsewhere
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / PROMPTS).write_text(" ".join(record["prompt"].split()) + "\n", encoding="utf-8")
