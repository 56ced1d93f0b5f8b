"""Put a model's parts into memory: the whole pipeline, or its denoiser alone."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from f3prune.errors import InputError
from f3prune.families import denoiser_component, family_of
from f3prune.quiet import silence_imported
from f3prune.sources import ModelSource, denoiser_class_name, read_json

_OWN_MODELS = "f3prune.models"
_HALF = {"F16": torch.float16, "BF16": torch.bfloat16}


def pick_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def working_dtype(source: ModelSource, device: torch.device) -> torch.dtype:
    """What to compute in: on a GPU half precision if the weights are stored so; float32 otherwise."""
    if device.type != "cuda" or source.random_weights:
        return torch.float32
    for path in sorted(source.denoiser_path.glob("*.safetensors")):
        with _readable(path), safe_open(str(path), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  (not a dict)
                return _HALF.get(file.get_slice(key).get_dtype(), torch.float32)
    return torch.float32


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Map what loaders raise over damaged or foreign files to one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} could not be loaded ({reason}): download or save the model again") from error


def load_pipeline(
    source: ModelSource,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    denoiser: nn.Module | None = None,
) -> Any:
    """The diffusers pipeline of MODEL, with ``denoiser`` in place of its own where given (its weights are not read).

    Raises:
        InputError: MODEL is a denoiser alone, or a file of it cannot be loaded.
        UnknownFamilyError: its denoiser is of no supported family.
    """
    if source.kind != "pipeline":
        raise InputError(
            f"MODEL {source.spec} is a denoiser alone, without text encoder and video decoder: "
            f"give the pipeline directory that contains it"
        )
    replaced = {} if denoiser is None else {source.denoiser_path.name: denoiser}
    with _readable(source.path):
        pipeline_class = _pipeline_class(source)
        silence_imported()
        pipeline = pipeline_class.from_pretrained(
            str(source.path), dtype=dtype, use_safetensors=True, local_files_only=True, **replaced
        )
    component = getattr(pipeline, denoiser_component(pipeline))
    if denoiser is None:
        family_of(component)
        component.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device) if device is not None else pipeline


def _pipeline_class(source: ModelSource) -> Any:
    import diffusers

    if hasattr(diffusers, source.class_name):
        return diffusers.DiffusionPipeline
    found = getattr(_own_models(), source.class_name, None)
    if found is None:
        raise InputError(
            f"{source.path / 'model_index.json'} names the pipeline class {source.class_name!r}, which diffusers "
            f"{diffusers.__version__} does not have: install the version that saved it"
        )
    return found


def _own_models() -> Any:
    try:
        return importlib.import_module(_OWN_MODELS)
    except ModuleNotFoundError:
        return None


def denoiser_class(name: str) -> Any:
    """The class of a denoiser by the name in its ``config.json``.

    Raises:
        UnknownFamilyError: no family has this class.
    """
    import diffusers

    family_of(name)
    found = getattr(diffusers, name, None) or getattr(_own_models(), name, None)
    if found is None:
        raise InputError(f"diffusers {diffusers.__version__} has no class {name}: install a version that does")
    return found


def load_denoiser(
    source: ModelSource, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> nn.Module:
    """The dense denoiser of MODEL, in evaluation mode, without the rest of a pipeline.

    Raises:
        InputError: a file of it cannot be loaded.
        UnknownFamilyError: it is of no supported family.
    """
    silence_imported()
    folder = source.denoiser_path
    name = denoiser_class_name(read_json(folder / "config.json"))
    if (source.path / "motion_adapter").is_dir() and name == "UNet2DConditionModel":
        denoiser = _load_motion_unet(source, dtype)
    else:
        cls = denoiser_class(name)
        with _readable(folder):
            if source.random_weights:
                denoiser = _random_denoiser(cls, folder, source.weights_seed).to(dtype)
            elif name == "TuneAVideoUNet":
                # Reads what either library saved, and names every tensor that does not fit.
                denoiser = cls.from_published(folder).to(dtype)
            else:
                denoiser = cls.from_pretrained(str(folder), dtype=dtype, use_safetensors=True)
    denoiser.eval().requires_grad_(False)
    return denoiser.to(device) if device is not None else denoiser


def _load_motion_unet(source: ModelSource, dtype: torch.dtype) -> Any:
    """AnimateDiff's denoiser is put together from an image UNet and a motion adapter."""
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    with _readable(source.path):
        options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
        unet = UNet2DConditionModel.from_pretrained(str(source.denoiser_path), **options)
        adapter = MotionAdapter.from_pretrained(str(source.path / "motion_adapter"), **options)
        return UNetMotionModel.from_unet2d(unet, adapter)


def _random_denoiser(cls: Any, folder: Path, seed: int) -> Any:
    """Seeded random weights under which every site matters, whatever training would start at zero."""
    from f3prune.random_weights import randomize_weights

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = cls.from_config(read_json(folder / "config.json"))
    randomize_weights(denoiser, seed)
    return denoiser
