"""What every step after calibration needs to know about a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from f3prune.calibration import Masks
from f3prune.core.captured_calls import FILE as CALLS
from f3prune.core.captured_calls import CapturedCall, load_calls
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.manifest import Manifest
from f3prune.core.run_directory import RunDirectory
from f3prune.families import Family, family_of
from f3prune.pipelines.loading import load_pipeline
from f3prune.pipelines.pipeline_runs import GenerationSettings
from f3prune.pipelines.prompts import Prompt
from f3prune.pipelines.sources import Lora, ModelSource, resolve
from f3prune.steps.strategy import GenerationStrategy, strategy_of

Variant = Literal["pruned", "dense"]
MASKS = "masks.json"
PACKAGES = ("torch", "diffusers", "transformers", "safetensors")


@dataclass(frozen=True)
class RunState:
    """The calibrated run: its model, how the pipeline was called, and with what.

    Attributes:
        run: the directory.
        calibration: manifest entry of the calibrate step, files verified.
        source: MODEL, found again.
        settings: of the pipeline call, every value filled in that is known.
        prompts: of the calibration.
    """

    run: RunDirectory
    calibration: Manifest
    source: ModelSource
    settings: GenerationSettings
    prompts: list[Prompt]

    @classmethod
    def of(cls, run: RunDirectory) -> RunState:
        """Read it back.

        Raises:
            ArtifactError: not calibrated, or a file was altered.
            InputError: MODEL is no longer where it was, or ``run.model`` is another one.
        """
        entry = run.require("calibrate")
        facts = entry.facts
        try:
            source = _source_of(facts, run.model)
            settings = GenerationSettings(**facts["settings"])
            prompts = [Prompt.from_json(value) for value in facts["prompts"]]
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{run.path}/manifest.json has an incomplete entry for 'calibrate': "
                f"make it with `{run.command('calibrate')}`"
            ) from error
        if run.model is not None:
            for part, digest in (("source", source.digest()), ("pipeline", source.pipeline_digest())):
                if digest != entry.inputs[part]:
                    raise InputError(
                        f"`model` {run.model} is not the one that was calibrated (sha256 of its "
                        f"{'denoiser' if part == 'source' else 'other parts'} {digest[:12]}, expected "
                        f"{entry.inputs[part][:12]}): give the same files"
                    )
        return cls(run, entry, source, settings, prompts)

    @property
    def family(self) -> Family:
        """The model family."""
        return family_of(str(self.calibration.facts["denoiser_class"]))

    @property
    def strategy(self) -> GenerationStrategy:
        """How the model generates."""
        return strategy_of(self.family)

    @property
    def synthetic(self) -> bool:
        """Whether conditioning was seeded noise (a denoiser alone)."""
        return bool(self.calibration.facts["synthetic"])

    def verified_source_digest(self) -> str:
        """The denoiser's digest, recomputed.

        Raises:
            ArtifactError: the model changed since it was calibrated.
        """
        digest = self.source.digest()
        expected = self.calibration.inputs["source"]
        if digest != expected:
            raise ArtifactError(
                f"`model` {self.source.spec} changed since it was calibrated (sha256 {digest[:12]}, "
                f"expected {expected[:12]}): calibrate it again with `{self.run.command('calibrate')}`"
            )
        return digest

    def verified_pipeline_digest(self) -> str:
        """The digest of text encoders, autoencoder, scheduler and tokenizers, recomputed.

        Raises:
            ArtifactError: one of them changed since calibration.
        """
        digest = self.source.pipeline_digest()
        expected = self.calibration.inputs["pipeline"]
        if digest != expected:
            raise ArtifactError(
                f"`model` {self.source.spec} has another text encoder, autoencoder, scheduler or tokenizer than when "
                f"it was calibrated (sha256 {digest[:12]}, expected {expected[:12]}): calibrate it again with "
                f"`{self.run.command('calibrate')}`"
            )
        return digest

    def load_pipeline(self, dtype: torch.dtype, device: torch.device) -> Any:
        """MODEL's whole pipeline, after its files were hashed.

        Raises:
            ArtifactError: the model changed since it was calibrated.
            InputError: a denoiser alone, or a file of it cannot be loaded.
        """
        self.verified_source_digest()
        self.verified_pipeline_digest()
        return load_pipeline(self.source, dtype, device)

    def calls(self) -> list[CapturedCall]:
        """The recorded denoiser calls, first to last timestep."""
        return load_calls(self.run.path / CALLS)


def _source_of(facts: Mapping[str, Any], model: str | None) -> ModelSource:
    """MODEL of a calibration, where it was or at ``model``."""
    try:
        loras = tuple(Lora(Path(lora["path"]), float(lora["scale"])) for lora in facts.get("loras", ()))
        return resolve(
            model or facts["model"],
            bool(facts["random_weights"]),
            int(facts["weights_seed"]),
            facts.get("variant"),
            loras,
        )
    except InputError as error:
        if model is not None:
            raise
        raise InputError(f"{error}; if it was moved, give `model=DIR`") from error


def masks_of_run(run: RunDirectory) -> Masks:
    """What the run prunes, as it was chosen.

    Raises:
        ArtifactError: not pruned, or ``masks.json`` was altered.
    """
    run.require_current("masks")
    return Masks.from_json(run.content("masks", MASKS).decode(errors="replace"))


def stage_directories(parent: Path, stages: int) -> list[Path]:
    """Where the stages of a step go: the directory itself for one, ``stage-k`` below it for more."""
    return [parent] if stages == 1 else [parent / f"stage-{k}" for k in range(stages)]


def need_pipeline(state: RunState, what: str) -> None:
    """Refuse a denoiser alone.

    Raises:
        InputError: always for a denoiser alone.
    """
    if state.source.kind == "denoiser":
        raise InputError(
            f"{state.source.spec} is a denoiser alone, which has no text encoder and no video decoder to {what} with: "
            f"start a run from the pipeline directory that contains it; check and bench work without one"
        )
