"""Configurations: what is checked, and how those of image models and of published checkpoints are read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from f3prune.core.errors import InputError

MIDDLE = "UNetMidBlock3DCrossAttn"
_DOWN = ("CrossAttnDownBlock3D", "DownBlock3D")
_UP = ("CrossAttnUpBlock3D", "UpBlock3D")
_FIXED: dict[str, tuple[Any, ...]] = {
    "mid_block_type": (MIDDLE,),
    "act_fn": ("silu", "swish"),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
}


def check_config(config: Mapping[str, Any]) -> list[int]:
    """The number of heads of every level.

    Raises:
        InputError: naming everything in the configuration that this model cannot be.
    """
    wrong = [
        f"{key} is {config[key]!r}, expected {' or '.join(map(repr, allowed))}"
        for key, allowed in _FIXED.items()
        if config[key] not in allowed
    ]
    widths = config["block_out_channels"]
    for key, allowed in (("down_block_types", _DOWN), ("up_block_types", _UP)):
        if len(config[key]) != len(widths) or any(kind not in allowed for kind in config[key]):
            wrong.append(f"{key} is {list(config[key])}, expected {len(widths)} of {' or '.join(allowed)}")
    for key in ("layers_per_block", "cross_attention_dim", "norm_num_groups"):
        if not isinstance(config[key], int) or config[key] < 1:
            wrong.append(f"{key} is {config[key]!r}, expected one whole number")
    heads = config["attention_head_dim"]
    heads = [heads] * len(widths) if isinstance(heads, int) else list(heads)
    if len(heads) != len(widths) or any(width % max(1, n) for width, n in zip(widths, heads, strict=False)):
        wrong.append(f"attention_head_dim is {heads}, expected numbers of heads that divide {list(widths)}")
    if wrong:
        raise InputError(f"this Tune-A-Video configuration is not supported: {'; '.join(wrong)}")
    return heads


def inflated_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Arguments of the video model for the configuration of a ``UNet2DConditionModel``.

    Raises:
        InputError: the image model has parts that the video model has not.
    """
    from diffusers import UNet2DConditionModel

    known = _arguments()
    theirs = inspect.signature(UNet2DConditionModel.__init__).parameters
    arguments: dict[str, Any] = {}
    foreign = []
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key in known:
            arguments[key] = _three_dimensional(value)
        elif key not in theirs or _plain(value) != _plain(theirs[key].default):
            foreign.append(f"{key}={value!r}")
    if foreign:
        raise InputError(
            f"{where} has no Tune-A-Video counterpart, because of {', '.join(foreign)}: "
            f"give the UNet of a Stable Diffusion 1.x or 2.x model"
        )
    # Configurations older than the key mean the same middle block.
    arguments.setdefault("mid_block_type", MIDDLE)
    if not isinstance(arguments.get("only_cross_attention", False), bool):
        arguments["only_cross_attention"] = any(arguments["only_cross_attention"])
    return arguments


def published_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Arguments of the model for the configuration of a Tune-A-Video checkpoint.

    Raises:
        InputError: it has keys that no version of Tune-A-Video writes.
    """
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    foreign = sorted(arguments.keys() - _arguments())
    if foreign:
        raise InputError(
            f"{where} has keys that Tune-A-Video does not have ({', '.join(foreign)}): "
            f"give the unet folder of a Tune-A-Video checkpoint"
        )
    return arguments


def _arguments() -> set[str]:
    from f3prune.models.tune_a_video._unet import TuneAVideoUNet

    return set(inspect.signature(TuneAVideoUNet.__init__).parameters) - {"self"}


def _three_dimensional(value: Any) -> Any:
    """Block types by the names that their inflated counterparts have."""
    if isinstance(value, str):
        return {
            "CrossAttnDownBlock2D": "CrossAttnDownBlock3D",
            "DownBlock2D": "DownBlock3D",
            "UNetMidBlock2DCrossAttn": MIDDLE,
            "UpBlock2D": "UpBlock3D",
            "CrossAttnUpBlock2D": "CrossAttnUpBlock3D",
        }.get(value, value)
    return [_three_dimensional(part) for part in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
