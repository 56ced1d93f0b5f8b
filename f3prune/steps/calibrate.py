"""Calibrate: MODEL and prompts in, frame mass of every site out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from f3prune import calibration
from f3prune.core.captured_calls import FILE as CALLS
from f3prune.core.captured_calls import Capture, CapturedCall, save_calls
from f3prune.core.json_files import read_json
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.families import LatentShape, SiteKind, denoiser_component, family_of
from f3prune.pipelines import prompts as prompt_lists
from f3prune.pipelines.loading import load_denoiser, load_pipeline, pick_device, working_dtype
from f3prune.pipelines.pipeline_runs import (
    GenerationSettings,
    check_latent_size,
    default_steps,
    mapped_errors,
    run_prompt,
)
from f3prune.pipelines.prompts import Prompt
from f3prune.pipelines.sources import ModelSource, denoiser_class_name, resolve
from f3prune.steps._state import PACKAGES, settings_json

AAS = "aas.safetensors"
SYNTHETIC_STEPS = 10
"""Timesteps of a denoiser alone when nobody says otherwise."""


@dataclass(frozen=True)
class CalibrateOptions:
    """What to calibrate, and how.

    Attributes:
        model: MODEL, see ``f3prune.pipelines.sources.resolve``.
        prompts: a ``.txt`` or ``.jsonl`` file; None takes the model's own list.
        num_prompts: use the first so many; for a denoiser alone, the number of seeded inputs.
        settings: how the pipeline is called.
        rows: sample so many query tokens per frame; None measures all.
        random_weights: make seeded weights for a denoiser's ``config.json``.
        sites: which kind of sites, see ``Family.find_sites``.
    """

    model: str
    prompts: Path | None = None
    num_prompts: int | None = None
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    rows: int | None = None
    random_weights: bool = False
    sites: SiteKind = "temporal"


def calibrate(run: RunDirectory, options: CalibrateOptions, reporter: Reporter = SILENT) -> tuple[Manifest, bool]:
    """Measure frame mass; writes ``aas.safetensors`` and ``calls.safetensors``.

    Returns:
        The step's manifest entry, and whether it was made now.

    Raises:
        InputError: MODEL, the prompts or the settings cannot be used.
        UnknownFamilyError: the denoiser is of no supported family.
    """
    source = resolve(options.model, options.random_weights, options.settings.seed)
    if source.kind == "denoiser":
        family_of(source.class_name)
    prompts = choose_prompts(source, options)
    settings = recommended(source, options.settings)
    with reporter.task("checking files"):
        recipe = Manifest(
            "calibrate",
            {
                "source": source.digest(),
                "pipeline": source.surroundings_digest(),
                "prompts": prompt_lists.prompts_digest(prompts),
            },
            {
                "model": source.spec,
                "settings": settings_json(settings),
                "rows": options.rows,
                "random_weights": options.random_weights,
                "sites": options.sites,
            },
            package_versions(*PACKAGES),
        )
        if (found := run.up_to_date(recipe)) is not None:
            return found, False

    def make(scratch: Path) -> dict[str, Any]:
        job = _Job(source, recipe.inputs["source"], prompts, settings, options.rows, options.sites, scratch, reporter)
        return _measure_pipeline(job) if source.kind == "pipeline" else _measure_denoiser(job)

    return run.perform(recipe, make, files=(AAS, CALLS))


def choose_prompts(source: ModelSource, options: CalibrateOptions) -> list[Prompt]:
    """The prompts of the file, the zoo or tuned model's own, or the built-in ones; as many as asked for."""
    if source.kind == "denoiser":
        return [Prompt("") for _ in range(options.num_prompts or 1)]
    if options.prompts is not None:
        return prompt_lists.take(
            prompt_lists.read_prompts(options.prompts), options.num_prompts, f"`prompts` {options.prompts}"
        )
    own = (source.path if source.zoo_name is None else source.path.parent) / "prompts.txt"
    if own.is_file():
        return prompt_lists.take(prompt_lists.read_prompts(own), options.num_prompts, f"{source.spec}'s own list")
    return prompt_lists.take(
        [Prompt(text) for text in prompt_lists.BUILT_IN], options.num_prompts, "the built-in list of prompts"
    )


def recommended(source: ModelSource, settings: GenerationSettings) -> GenerationSettings:
    """Fill in what the zoo model's card recommends where nothing was given."""
    card = _zoo_card(source).get("recommended", {})
    if settings.steps is None and "num_inference_steps" in card:
        settings = replace(settings, steps=int(card["num_inference_steps"]))
    if settings.guidance is None and "guidance_scale" in card:
        settings = replace(settings, guidance=float(card["guidance_scale"]))
    return settings


def _zoo_card(source: ModelSource) -> dict[str, Any]:
    if source.zoo_name is None or not (source.path / "card.json").is_file():
        return {}
    from f3prune import zoo

    return zoo.card(source.zoo_name)


@dataclass(frozen=True)
class _Job:
    """All that a measurement needs."""

    source: ModelSource
    digest: str
    prompts: list[Prompt]
    settings: GenerationSettings
    rows: int | None
    sites: SiteKind
    scratch: Path
    reporter: Reporter

    def metadata(self) -> dict[str, str]:
        """Provenance that goes into ``aas.safetensors``."""
        alone = self.source.kind == "denoiser"
        return {
            "model": self.source.spec,
            "source_digest": self.digest,
            "settings": json.dumps(settings_json(self.settings), sort_keys=True),
            "prompts": json.dumps([prompt.to_json() for prompt in self.prompts]),
            "conditioning": "synthetic: seeded normal embeddings" if alone else "prompts",
            "versions": json.dumps(package_versions(*PACKAGES), sort_keys=True),
        }

    def write(
        self, result: calibration.Calibration, calls: list[CapturedCall], text_lengths: set[int], denoiser: Any
    ) -> dict[str, Any]:
        """Write the step's files; returns the facts that later steps want."""
        result.save(self.scratch / AAS)
        save_calls(calls, self.scratch / CALLS)
        return {
            "model": self.source.spec,
            "random_weights": self.source.random_weights,
            "weights_seed": self.source.weights_seed,
            "synthetic": self.source.kind == "denoiser",
            "family": result.family,
            "denoiser_class": type(denoiser).__name__,
            "sites": len(result.sites),
            "text_lengths": sorted(text_lengths),
            "timesteps": list(result.timesteps),
            "parameters": sum(parameter.numel() for parameter in denoiser.parameters()),
            "settings": settings_json(self.settings),
            "prompts": [prompt.to_json() for prompt in self.prompts],
        }


def _measure_pipeline(job: _Job) -> dict[str, Any]:
    if family_of(denoiser_class_name(read_json(job.source.denoiser_path / "config.json"))).autoregressive:
        from f3prune.steps import autoregressive

        found = autoregressive.measure_pipeline(
            job.source, job.prompts, job.settings, job.rows, job.sites, job.reporter, job.metadata()
        )
        return job.write(found[0], found[1], set(), found[2])
    device = pick_device()
    with job.reporter.task("loading the pipeline"):
        pipeline = load_pipeline(job.source, working_dtype(job.source, device), device)
    denoiser = getattr(pipeline, denoiser_component(pipeline))
    family = family_of(denoiser)
    steps = job.settings.steps or default_steps(pipeline)
    job = replace(job, settings=replace(job.settings, steps=steps))
    capture = Capture(denoiser, steps)
    with job.reporter.task("calibrating", total=steps * len(job.prompts)) as advance:

        def denoise() -> None:
            with capture.recording():
                for index, prompt in enumerate(job.prompts):
                    run_prompt(pipeline, job.settings, prompt, index, family, on_step=advance, decode=False)

        result = calibration.calibrate(
            denoiser, denoise, rows=job.rows, seed=job.settings.seed, sites=job.sites, **job.metadata()
        )
    return job.write(result, capture.calls, capture.text_lengths, denoiser)


def _measure_denoiser(job: _Job) -> dict[str, Any]:
    device = pick_device()
    with job.reporter.task("loading the denoiser"):
        denoiser = load_denoiser(job.source, working_dtype(job.source, device), device)
    given = job.settings
    check_latent_size(denoiser.config, given)  # type: ignore[arg-type]
    default = family_of(denoiser).default_shape(denoiser.config)  # type: ignore[arg-type]
    shape = LatentShape(
        given.num_frames or default.frames, given.height or default.height, given.width or default.width
    )
    steps = given.steps or SYNTHETIC_STEPS
    settings = replace(given, steps=steps, num_frames=shape.frames, height=shape.height, width=shape.width)
    job = replace(job, settings=settings)
    capture = Capture(denoiser, steps)
    with job.reporter.task("calibrating", total=steps * len(job.prompts)) as advance:

        def denoise() -> None:
            with capture.recording(), mapped_errors(f"{type(denoiser).__name__} at {shape}"):
                for index in range(len(job.prompts)):
                    calibration.denoise_synthetic(
                        denoiser, shape, steps, seed=settings.seed + index * steps, on_step=lambda _: advance()
                    )

        result = calibration.calibrate(
            denoiser, denoise, rows=job.rows, seed=settings.seed, sites=job.sites, **job.metadata()
        )
    return job.write(result, capture.calls, capture.text_lengths, denoiser)
