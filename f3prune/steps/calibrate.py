"""Calibrate: MODEL and prompts in, frame mass of every site out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from f3prune.core.atomic_files import sha256_file
from f3prune.core.captured_calls import FILE as CALLS
from f3prune.core.captured_calls import save_calls
from f3prune.core.json_values import json_values
from f3prune.core.manifest import Manifest, package_versions
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.families import SiteKind
from f3prune.pipelines import prompts as prompt_lists
from f3prune.pipelines.pipeline_runs import GenerationSettings
from f3prune.pipelines.prompts import Prompt
from f3prune.pipelines.sources import Lora, ModelSource, resolve
from f3prune.steps._state import PACKAGES
from f3prune.steps.strategy import CalibrationJob, Measured, strategy_of

AAS = "aas.safetensors"


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
        offload: where weights are while the model runs, see ``f3prune.core.choices.OFFLOADS``; it changes no result.
        variant: of the weight files, as in diffusers' ``from_pretrained``.
        lora: LoRAs to fuse into the denoiser, one after the other.
    """

    model: str
    prompts: Path | None = None
    num_prompts: int | None = None
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    rows: int | None = None
    random_weights: bool = False
    sites: SiteKind = "temporal"
    variant: str | None = None
    offload: str = "none"
    lora: tuple[Lora, ...] = ()


def calibrate(run: RunDirectory, options: CalibrateOptions, reporter: Reporter = SILENT) -> tuple[Manifest, bool]:
    """Measure frame mass; writes ``aas.safetensors`` and ``calls.safetensors``.

    Returns:
        The step's manifest entry, and whether it was made now.

    Raises:
        InputError: MODEL, the prompts or the settings cannot be used.
        UnknownFamilyError: the denoiser is of no supported family.
    """
    source = resolve(options.model, options.random_weights, options.settings.seed, options.variant, options.lora)
    family = source.family()
    prompts = choose_prompts(source, options)
    settings = recommended(source, options.settings)
    with reporter.task("checking files"):
        recipe = Manifest(
            "calibrate",
            {
                "source": source.digest(),
                "pipeline": source.pipeline_digest(),
                "prompts": prompt_lists.prompts_digest(prompts),
            },
            {
                "model": source.spec,
                "settings": json_values(settings),
                "rows": options.rows,
                "random_weights": options.random_weights,
                "sites": options.sites,
                **({"variant": source.variant} if source.variant else {}),
                **({"loras": _named(source)} if source.loras else {}),
            },
            package_versions(*PACKAGES),
        )
        if (found := run.up_to_date(recipe)) is not None:
            return found, False

    def metadata(settings: GenerationSettings) -> dict[str, str]:
        return {
            "model": source.spec,
            "source_digest": recipe.inputs["source"],
            "settings": json.dumps(json_values(settings), sort_keys=True),
            "prompts": json.dumps([prompt.to_json() for prompt in prompts]),
            "conditioning": "synthetic: seeded normal embeddings" if source.kind == "denoiser" else "prompts",
            "versions": json.dumps(package_versions(*PACKAGES), sort_keys=True),
        }

    def make(scratch: Path) -> dict[str, Any]:
        job = CalibrationJob(
            source, prompts, settings, options.rows, options.sites, reporter, metadata, options.offload
        )
        return write_measured(strategy_of(family).measure(job), source, prompts, scratch)

    return run.perform(recipe, make, files=(AAS, CALLS))


def _named(source: ModelSource) -> list[dict[str, Any]]:
    return [{"path": str(lora.path), "scale": lora.scale, "sha256": sha256_file(lora.path)} for lora in source.loras]


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


def write_measured(measured: Measured, source: ModelSource, prompts: list[Prompt], folder: Path) -> dict[str, Any]:
    """Write the step's files to ``folder``; returns the facts that later steps want to know."""
    measured.calibration.save(folder / AAS)
    save_calls(measured.calls, folder / CALLS)
    denoiser = measured.denoiser
    return {
        "model": source.spec,
        "random_weights": source.random_weights,
        "weights_seed": source.weights_seed,
        "variant": source.variant,
        "loras": _named(source),
        "synthetic": source.kind == "denoiser",
        "family": measured.calibration.family,
        "denoiser_class": type(denoiser).__name__,
        "sites": len(measured.calibration.sites),
        "text_lengths": sorted(measured.text_lengths),
        "timesteps": list(measured.calibration.timesteps),
        "parameters": sum(parameter.numel() for parameter in denoiser.parameters()),
        "settings": json_values(measured.settings),
        "prompts": [prompt.to_json() for prompt in prompts],
    }
