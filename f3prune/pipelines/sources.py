"""MODEL: what the word on the command line stands for, and the digest of its denoiser. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from f3prune.core.atomic_files import digest_of_files, sha256_file
from f3prune.core.checkpoints.weight_files import has_variant, listed_files, quantisation, variants_of, weight_files
from f3prune.core.errors import InputError
from f3prune.core.json_values import read_json
from f3prune.families import Family, family_of

Kind = Literal["pipeline", "denoiser"]
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHT_MAPS = "*.safetensors.index*.json"
"""Of both libraries, with or without a variant's name."""
_SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")
_DENOISERS = ("transformer", "unet")
_BESIDE_DENOISER = ("motion_adapter",)
"""Components whose weights become part of the denoiser when the pipeline is put together (AnimateDiff)."""


@dataclass(frozen=True)
class Lora:
    """A LoRA that is fused into the denoiser.

    Attributes:
        path: of its safetensors file.
        scale: what its change is multiplied by.
    """

    path: Path
    scale: float = 1.0


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine.

    Attributes:
        spec: what names it again from anywhere: an absolute path, ``zoo:NAME`` or a hub id.
        path: its directory.
        kind: ``pipeline`` (has ``model_index.json``) or ``denoiser`` (has ``config.json`` with ``_class_name``).
        class_name: of the pipeline or of the denoiser.
        random_weights: a denoiser made from its configuration alone.
        weights_seed: of the random weights.
        variant: of the weight files, as in ``from_pretrained``, where a component has them.
        loras: fused into the denoiser, one after the other.
    """

    spec: str
    path: Path
    kind: Kind
    class_name: str
    random_weights: bool = False
    weights_seed: int = 0
    variant: str | None = None
    loras: tuple[Lora, ...] = ()

    @property
    def denoiser_path(self) -> Path:
        """Directory with the denoiser's ``config.json``."""
        return self.path if self.kind == "denoiser" else self.path / _denoiser_folder(self.path)

    @property
    def denoiser_class(self) -> str:
        """Class of the denoiser, which AnimateDiff puts together from an image UNet and a motion adapter."""
        name = denoiser_class_name(read_json(self.denoiser_path / "config.json"))
        adapted = name == "UNet2DConditionModel" and (self.path / "motion_adapter").is_dir()
        return "UNetMotionModel" if adapted else name

    def family(self) -> Family:
        """The denoiser's family.

        Raises:
            UnknownFamilyError: it has none; the message names the pipeline, too, and says why where that is known.
            InputError: it has one, but is configured to attend in a way that cannot be pruned.
        """
        try:
            family = family_of(self.denoiser_class)
            family.require_prunable(read_json(self.denoiser_path / "config.json"))
        except InputError as error:
            if self.kind == "denoiser":
                raise
            raise type(error)(f"{self.class_name} in {self.path}: {error}") from error
        return family

    @property
    def zoo_name(self) -> str | None:
        """NAME of ``zoo:NAME``."""
        return self.spec.removeprefix("zoo:") if self.spec.startswith("zoo:") else None

    def digest(self) -> str:
        """SHA-256 over the denoiser's configuration, the weight files that are read or their seed, and LoRAs."""
        folders = [self.denoiser_path]
        if self.kind == "pipeline":
            folders += [self.path / name for name in _BESIDE_DENOISER if (self.path / name).is_dir()]
        files = {
            path.relative_to(self.path).as_posix(): sha256_file(path)
            for folder in folders
            for path in _files(folder, self.variant, weights=not self.random_weights)
        }
        if self.random_weights:
            files["random weights"] = str(self.weights_seed)
        for number, lora in enumerate(self.loras):
            files[f"lora {number} at {lora.scale:g}"] = sha256_file(lora.path)
        return digest_of_files(files)

    def pipeline_digest(self) -> str:
        """SHA-256 over everything else of the pipeline: text encoders, autoencoder, scheduler, tokenizers, tables."""
        if self.kind == "denoiser":
            return digest_of_files({})
        denoiser = self.denoiser_path
        return digest_of_files(
            {
                path.relative_to(self.path).as_posix(): sha256_file(path)
                for path in sorted(self.path.rglob("*"))
                if path.is_file()
                and denoiser not in path.parents
                and path.suffix not in PICKLES
                and not any(part.startswith(".") for part in path.relative_to(self.path).parts)
                and (path.parent != self.path or path.suffix in {".json", ".safetensors"})
            }
        )


def resolve(
    spec: str,
    random_weights: bool = False,
    weights_seed: int = 0,
    variant: str | None = None,
    loras: tuple[Lora, ...] = (),
) -> ModelSource:
    """Find MODEL: a directory, ``zoo:NAME`` or a hub id (fetched into the hub's cache if it is not there).

    Raises:
        InputError: nothing of that name, not a model, weights missing, quantised, of another variant, or only pickles;
            or LoRAs for a denoiser alone, or of files that are gone.
    """
    if spec.startswith("zoo:"):
        from f3prune import zoo

        path = zoo.path(spec.removeprefix("zoo:"))
    elif Path(spec).is_dir():
        path = Path(spec).resolve()
        spec = str(path)
    elif Path(spec).exists():
        raise InputError(f"`model` {spec} is a file: give the directory of a diffusers pipeline or of a denoiser")
    elif _HUB_ID.fullmatch(spec):
        path = _fetch(spec, variant)
    else:
        raise InputError(
            f"`model` {spec!r} does not exist: give a diffusers pipeline directory, a denoiser's directory, "
            f"a hub id (organisation/name) or zoo:NAME"
        )
    source = _describe(spec, path, random_weights, weights_seed, variant)
    if loras and source.kind == "denoiser":
        raise InputError(f"`lora` is for a pipeline, and {spec} is a denoiser alone: give the pipeline that it is from")
    for lora in loras:
        if not lora.path.is_file():
            raise InputError(f"`lora` {lora.path} does not exist: put it back, or calibrate without it")
    return replace(source, loras=loras)


def _describe(spec: str, path: Path, random_weights: bool, weights_seed: int, variant: str | None) -> ModelSource:
    if (path / "model_index.json").is_file():
        index = read_json(path / "model_index.json")
        source = ModelSource(spec, path, "pipeline", str(index.get("_class_name", "")), variant=variant)
        if random_weights:
            raise InputError(
                f"`random_weights` is for a denoiser alone, and {spec} is a pipeline: "
                f"give {path / _denoiser_folder(path)}, or leave the option out"
            )
        _check_weight_maps(path)
        components = [path / name for name, entry in index.items() if name[0] != "_" and isinstance(entry, list)]
        for folder in components:
            _check_component(folder, variant)
        _need_weights(source.denoiser_path, variant)
        _need_variant([*components, source.denoiser_path], variant)
        return source
    if (path / "config.json").is_file():
        class_name = denoiser_class_name(read_json(path / "config.json"))
        if not class_name:
            raise InputError(
                f"{path / 'config.json'} has no _class_name: "
                f"give a denoiser's directory as diffusers' save_pretrained writes it"
            )
        if random_weights:
            return ModelSource(spec, path, "denoiser", class_name, True, weights_seed)
        _check_weight_maps(path)
        _check_component(path, variant)
        _need_weights(path, variant)
        _need_variant([path], variant)
        return ModelSource(spec, path, "denoiser", class_name, variant=variant)
    raise InputError(
        f"`model` {spec} has neither model_index.json (a diffusers pipeline) nor config.json (a denoiser): "
        f"give a directory that save_pretrained wrote"
    )


def denoiser_class_name(config: Mapping[str, Any]) -> str:
    """The class that a denoiser's ``config.json`` means; empty where it names none.

    Published Tune-A-Video checkpoints say ``UNet3DConditionModel``, which is ModelScope's class in diffusers. Only
    theirs name a middle block.
    """
    name = str(config.get("_class_name", ""))
    return "TuneAVideoUNet" if name == "UNet3DConditionModel" and "mid_block_type" in config else name


def _denoiser_folder(path: Path) -> str:
    for name in _DENOISERS:
        if (path / name / "config.json").is_file():
            return name
    raise InputError(
        f"pipeline {path} has no {' or '.join(_DENOISERS)} directory with a config.json: it has no denoiser to prune"
    )


def _files(folder: Path, variant: str | None, weights: bool) -> list[Path]:
    """Configuration and weights of a component; of random weights whatever lies there."""
    described = [path for path in folder.iterdir() if path.suffix == ".json" and ".index." not in path.name]
    return sorted({*described, *(listed_files(folder, variant) if weights else folder.glob("*.safetensors"))})


def _pickles(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in PICKLES) if folder.is_dir() else []


def _check_component(folder: Path, variant: str | None) -> None:
    """Refuse weights that exist only as pickles, whose unpickling runs code from the file, and quantised ones."""
    pickles = _pickles(folder)
    if pickles and not any(folder.glob("*.safetensors")):
        raise InputError(_pickle_message(pickles[0]))
    if (folder / "config.json").is_file() and (method := quantisation(read_json(folder / "config.json"))):
        raise InputError(
            f"{folder.name} of {folder.parent} is quantised ({method}), and quantised weights cannot be calibrated: "
            f"give the checkpoint in fp32, fp16 or bf16"
        )
    others = variants_of(folder)
    if others and not weight_files(folder, variant):
        raise InputError(f"{folder} has weights of variant {' and '.join(others)} alone: give `variant={others[0]!r}`")


def _need_variant(folders: list[Path], variant: str | None) -> None:
    """Some component has to have weights of the variant that is asked for."""
    if variant is None or any(has_variant(folder, variant) for folder in folders):
        return
    found = sorted({name for folder in folders for name in variants_of(folder)})
    there = f"there {'is' if len(found) == 1 else 'are'} {', '.join(found)}" if found else "there is none: leave it out"
    raise InputError(f"`variant` {variant!r}: no weights of {folders[-1].parent} have it, {there}")


def _check_weight_maps(path: Path) -> None:
    """What a weight map names is loaded, so that it must be what is hashed: safetensors files beside it."""
    for file in sorted(path.rglob(_WEIGHT_MAPS)):
        places = read_json(file).get("weight_map")
        if not isinstance(places, dict):
            raise InputError(f"{file} has no weight_map: download or save the model again")
        for name in places.values():
            if not isinstance(name, str) or not _SHARD.fullmatch(name):
                raise InputError(
                    f"{file} names the weights {name!r}, expected a .safetensors file in the same directory: "
                    f"download or save the model again"
                )


def _pickle_message(path: Path) -> str:
    return (
        f"{path} is a pickle, and loading one can run any code: expected .safetensors; "
        f"save the model again with save_pretrained(..., safe_serialization=True)"
    )


def _need_weights(folder: Path, variant: str | None) -> None:
    if weight_files(folder, variant):
        return
    pickles = _pickles(folder)
    if pickles:
        raise InputError(_pickle_message(pickles[0]))
    raise InputError(
        f"{folder} has no .safetensors weights: download them, or give the denoiser's directory with "
        "`random_weights=True`"
    )


def _fetch(hub_id: str, variant: str | None) -> Path:
    """Directory of a hub pipeline, downloaded if it is not in the cache."""
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(DiffusionPipeline.download(hub_id, use_safetensors=True, variant=variant))
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise InputError(
            f"`model` {hub_id!r} is no directory here, and the hub answered {status}: "
            f"check the name and your access, or give a local pipeline directory"
        ) from error
    except Exception as error:  # the hub client raises many kinds, by transport and version
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"`model` {hub_id!r} is no directory here and could not be fetched from the hub ({reason[:120]}): "
            f"check the name and the network, or give a local pipeline directory"
        ) from error
