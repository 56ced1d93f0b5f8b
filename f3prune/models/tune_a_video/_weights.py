"""Weights from elsewhere: an inflated image model, or a published Tune-A-Video checkpoint."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from f3prune.core.checkpoints.weight_files import weight_files
from f3prune.core.errors import InputError
from f3prune.core.json_values import read_json
from f3prune.models.tune_a_video._config import inflated_config, published_config

if TYPE_CHECKING:
    from f3prune.models.tune_a_video._unet import TuneAVideoUNet

_STEM = "diffusion_pytorch_model"
_NEW = re.compile(r".+\.(attn_temp|norm_temp)\..+")


def inflate(
    cls: type[TuneAVideoUNet], source: nn.Module | str | Path, zero_bias: bool, variant: str | None = None
) -> TuneAVideoUNet:
    """See ``TuneAVideoUNet.from_2d``."""
    from diffusers import UNet2DConditionModel

    if isinstance(source, nn.Module):
        where = type(source).__name__
        if not isinstance(source, UNet2DConditionModel):
            raise InputError(f"the model to inflate is a {where}, expected a UNet2DConditionModel")
        config = dict(source.config)
        # Tensors of its own: training the video model must not train the image model.
        state = {name: tensor.detach().clone() for name, tensor in source.state_dict().items()}
    else:
        folder = Path(source)
        where, config = str(folder), read_json(folder / "config.json")
        if config.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel":
            raise InputError(f"{folder} holds a {config['_class_name']}, expected a UNet2DConditionModel to inflate")
        state = {name: tensor.float() for name, tensor in _read(folder, False, variant).items()}
    with torch.device("meta"):
        model = cls(**inflated_config(config, where))
    expected = {name: tensor for name, tensor in model.state_dict().items() if not _NEW.fullmatch(name)}
    _check(state, expected, where)
    like = next(iter(state.values()))
    for name, module in model.named_modules():
        if name.endswith((".attn_temp", ".norm_temp")):
            fresh = module.to_empty(device="cpu")
            for part in fresh.modules():
                if isinstance(part, nn.Linear | nn.LayerNorm):
                    part.reset_parameters()
            if name.endswith(".attn_temp"):
                output = fresh.get_submodule("to_out.0")
                nn.init.zeros_(output.get_parameter("weight"))
                if zero_bias:
                    nn.init.zeros_(output.get_parameter("bias"))
            fresh.to(like.device, like.dtype)
    model.load_state_dict(state, strict=False, assign=True)
    return model.eval()


def load_published(cls: type[TuneAVideoUNet], directory: str | Path, variant: str | None = None) -> TuneAVideoUNet:
    """See ``TuneAVideoUNet.from_published``."""
    folder = Path(directory)
    config = published_config(read_json(folder / "config.json"), str(folder / "config.json"))
    state = {name: tensor.float() for name, tensor in _read(folder, True, variant).items()}
    with torch.device("meta"):
        model = cls(**config)
    _check(state, model.state_dict(), str(folder))
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def _read(folder: Path, pickles: bool, variant: str | None) -> dict[str, torch.Tensor]:
    """All tensors of a model's folder, in their own dtype."""
    whole, pickled = folder / f"{_STEM}.safetensors", folder / f"{_STEM}.bin"
    try:
        if files := weight_files(folder, variant):
            return {name: tensor for file in files for name, tensor in load_file(str(file)).items()}
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"the weights in {folder} cannot be read ({error}): download or save them again") from error
    if not pickled.is_file():
        raise InputError(f"{folder} has no {whole.name}: download it, or give the directory that has it")
    if not pickles:
        raise InputError(
            f"{pickled} is a pickle, and loading one can run any code: expected {whole.name}; "
            f"save the model again with save_pretrained(..., safe_serialization=True)"
        )
    try:
        state = torch.load(pickled, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"{pickled} holds more than tensors, or is damaged: expected {whole.name}") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(tensor) for tensor in state.values()):
        raise InputError(f"{pickled} is not a state dict of tensors by name: expected {whole.name}")
    return state


def _check(given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], where: str) -> None:
    """Compare names and shapes.

    Raises:
        InputError: naming every tensor that is missing, left over or of another shape.
    """
    wrong = [f"{name} is missing" for name in expected if name not in given]
    wrong += [f"{name} is not one of this model's" for name in given if name not in expected]
    wrong += [
        f"{name} is {_shape(given[name])}, expected {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if wrong:
        raise InputError(
            f"{len(wrong)} tensors of {where} do not fit its configuration: {'; '.join(wrong)}: "
            f"give weights and config.json of one model"
        )


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
