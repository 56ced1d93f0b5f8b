"""The motion modules that are put into the image UNet."""

from __future__ import annotations

from typing import Any

import torch

from f3prune.zoo.digits.dataset import FRAMES
from zoo_training.digits_image.architecture import HEADS


def build_unet(image_unet: Any) -> Any:
    """A `diffusers.UNetMotionModel` (latents `b c f h w`) with the weights of a `UNet2DConditionModel`.

    The seven motion modules add nothing until they are trained: their output projections start at zero.
    """
    from diffusers import MotionAdapter, UNetMotionModel

    adapter = MotionAdapter(
        block_out_channels=tuple(image_unet.config.block_out_channels),
        motion_layers_per_block=image_unet.config.layers_per_block,
        motion_norm_num_groups=image_unet.config.norm_num_groups,
        motion_num_attention_heads=HEADS,
        motion_max_seq_length=FRAMES,
    )
    unet = UNetMotionModel.from_unet2d(image_unet, adapter)
    for name, module in unet.named_modules():
        if ".motion_modules." in name and name.endswith(".proj_out"):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return unet
