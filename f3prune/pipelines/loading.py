"""Put a model's parts into memory: the whole pipeline, or its denoiser alone."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from f3prune.core.checkpoints.checked_load import load_checked
from f3prune.core.checkpoints.weight_files import weight_files
from f3prune.core.errors import InputError, reason_of
from f3prune.core.json_values import read_json
from f3prune.core.quiet import silence_imported
from f3prune.core.weights import (
    lazily_in_dtype,
    lazily_randomized,
    randomize_weights,
    read_header,
    read_lazily,
)
from f3prune.families import denoiser_component, family_of
from f3prune.families.classes import denoiser_class, kept_in_fp32, own_models
from f3prune.pipelines.sources import ModelSource, denoiser_class_name

_HALF = (torch.float16, torch.bfloat16)


def pick_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def working_dtype(source: ModelSource, device: torch.device) -> torch.dtype:
    """What to compute in: on a GPU half precision if the weights are stored so; float32 otherwise."""
    return stored_dtype(source) if device.type == "cuda" else torch.float32


def stored_dtype(source: ModelSource) -> torch.dtype:
    """Half precision if most of the denoiser's weights are stored so; float32 otherwise."""
    sizes: Counter[torch.dtype] = Counter()
    for path in () if source.random_weights else weight_files(source.denoiser_path, source.variant):
        with _readable(path):
            for entry in read_header(path).values():
                sizes[entry.dtype] += math.prod(entry.shape)
    most = sizes.most_common(1)[0][0] if sizes else torch.float32
    return most if most in _HALF else torch.float32


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Map what loaders raise over damaged or foreign files to one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        reason = reason_of(error)
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
            f"`model` {source.spec} is a denoiser alone, without text encoder and video decoder: "
            f"give the pipeline directory that contains it"
        )
    from diffusers import DiffusionPipeline

    replaced = {} if denoiser is None else {source.denoiser_path.name: denoiser}
    with _readable(source.path):
        pipeline_class = _pipeline_class(source)
        silence_imported()
        options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True, **replaced}
        if issubclass(pipeline_class, DiffusionPipeline):
            options |= _parts(source, dtype, replaced)
        else:
            options["variant"] = source.variant
        pipeline = pipeline_class.from_pretrained(str(source.path), **options)
    component = getattr(pipeline, denoiser_component(pipeline))
    if denoiser is None:
        family_of(component)
        _fuse_loras(component, source)
        component.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device) if device is not None else pipeline


def _pipeline_class(source: ModelSource) -> Any:
    import diffusers

    # Of the class itself: ``DiffusionPipeline`` would load optional parts again although they are given.
    found = getattr(diffusers, source.class_name, None) or getattr(own_models(), source.class_name, None)
    if found is None:
        raise InputError(
            f"{source.path / 'model_index.json'} names the pipeline class {source.class_name!r}, which diffusers "
            f"{diffusers.__version__} does not have: install the version that saved it"
        )
    return found


def _parts(source: ModelSource, dtype: torch.dtype, replaced: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline's models, each loaded as the pipeline would and held against its configuration."""
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers, "f3prune.models": own_models()}
    found = {}
    for name, entry in read_json(source.path / "model_index.json").items():
        if name.startswith("_") or name in replaced or not isinstance(entry, list) or len(entry) != 2:
            continue
        cls = getattr(libraries.get(str(entry[0])), str(entry[1]), None)
        if isinstance(cls, type) and issubclass(cls, (diffusers.ModelMixin, transformers.PreTrainedModel)):
            found[name] = load_checked(cls, source.path / name, dtype, source.variant)
    return found


def load_denoiser(
    source: ModelSource, dtype: torch.dtype = torch.float32, device: torch.device | None = None, lazy: bool = False
) -> nn.Module:
    """The dense denoiser of MODEL, in evaluation mode, without the rest of a pipeline.

    Args:
        source: MODEL.
        dtype: of the weights, but for those that the class keeps in float32.
        device: put it there.
        lazy: leave the weights in their files until they are used (``f3prune.core.weights.lazy_weights``), on the CPU.
            Files of an older or another layout, which their loader converts, are read all the same.

    Raises:
        InputError: a file of it cannot be loaded.
        UnknownFamilyError: it is of no supported family.
    """
    silence_imported()
    folder = source.denoiser_path
    name = denoiser_class_name(read_json(folder / "config.json"))
    if name != source.denoiser_class:
        denoiser = _load_motion_unet(source, dtype)
    else:
        cls = denoiser_class(name)
        with _readable(folder):
            found = _lazy_denoiser(cls, source, dtype) if lazy and device is None else None
            if found is not None:
                denoiser = found
            elif source.random_weights:
                denoiser = _random_denoiser(cls, folder, source.weights_seed).to(dtype)
            elif name == "TuneAVideoUNet":
                # Reads what either library saved, and names every tensor that does not fit.
                denoiser = cls.from_published(folder, source.variant).to(dtype)
            else:
                denoiser = load_checked(cls, folder, dtype, source.variant)
    _fuse_loras(denoiser, source)
    denoiser.eval().requires_grad_(False)
    return denoiser.to(device) if device is not None else denoiser


def _fuse_loras(denoiser: nn.Module, source: ModelSource) -> None:
    if source.loras:
        from f3prune.pipelines.lora import fuse

        fuse(denoiser, source.loras, _pipeline_class(source), stored_dtype(source))


def _lazy_denoiser(cls: Any, source: ModelSource, dtype: torch.dtype) -> Any:
    """As ``from_pretrained`` loads it, but with lazy weights; None where it would convert names of weights."""
    from accelerate import init_empty_weights
    from diffusers import ModelMixin

    if not issubclass(cls, ModelMixin):
        return None
    folder = source.denoiser_path
    before = torch.get_default_dtype()
    try:
        # Buffers are computed in the dtype that the class finds, as in from_pretrained.
        torch.set_default_dtype(torch.float32 if source.random_weights else dtype)
        with init_empty_weights(include_buffers=False):
            denoiser = cls.from_config(read_json(folder / "config.json"))
    finally:
        torch.set_default_dtype(before)
    if source.random_weights:
        return lazily_in_dtype(lazily_randomized(denoiser, source.weights_seed), dtype, keep=())
    state: dict[str, torch.Tensor] = {}
    for path in weight_files(folder, source.variant):
        state |= read_lazily(path)
    wanted = denoiser.state_dict()
    if state.keys() != wanted.keys() or any(state[name].shape != wanted[name].shape for name in wanted):
        return None
    denoiser.load_state_dict(state, strict=True, assign=True)
    return lazily_in_dtype(denoiser, dtype, keep=kept_in_fp32(denoiser), computed_buffers=False)


def _load_motion_unet(source: ModelSource, dtype: torch.dtype) -> Any:
    """AnimateDiff's denoiser is put together from an image UNet and a motion adapter."""
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    with _readable(source.path):
        unet = load_checked(UNet2DConditionModel, source.denoiser_path, dtype, source.variant)
        adapter = load_checked(MotionAdapter, source.path / "motion_adapter", dtype, source.variant)
        return UNetMotionModel.from_unet2d(unet, adapter)


def _random_denoiser(cls: Any, folder: Path, seed: int) -> Any:
    """Seeded random weights under which every site matters, whatever training would start at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = cls.from_config(read_json(folder / "config.json"))
    randomize_weights(denoiser, seed)
    return denoiser
