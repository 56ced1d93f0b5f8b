"""The untrained parts of the pipeline: sizes, noise schedule and initialisation."""

from __future__ import annotations

from typing import Any

import torch

from f3prune.zoo.digits.dataset import FRAMES
from zoo_training.digits.architecture import TEXT_WIDTH
from zoo_training.digits_image.architecture import LATENT_CHANNELS, LATENT_SIZE

HEADS, HEAD_WIDTH, PAIRS = 4, 32, 4
"""Heads of an attention, their width, and pairs of a spatial and a temporal block."""


def build_transformer() -> Any:
    """The denoiser: latents `b c f h w`, timesteps `b` and text states `b l d` to a velocity `b c f h w`.

    The gates of every block and the output projections start at zero, so that training starts from the identity.
    """
    from diffusers import LatteTransformer3DModel

    width = HEADS * HEAD_WIDTH
    model = LatteTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=PAIRS,
        cross_attention_dim=width,
        attention_bias=True,
        sample_size=LATENT_SIZE,
        patch_size=2,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=TEXT_WIDTH,
        video_length=FRAMES,
    )
    starts_at_zero = [model.adaln_single.linear, model.proj_out]
    for block in (*model.transformer_blocks, *model.temporal_transformer_blocks):
        torch.nn.init.zeros_(block.scale_shift_table)
        if block.attn2 is not None:
            starts_at_zero.append(block.attn2.to_out[0])
    for linear in starts_at_zero:
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return model


def with_variance(model: Any) -> Any:
    """A copy of the denoiser that predicts `b 2c f h w`: the velocity, then a variance that is zero.

    Latte's pipeline takes the first half of what its denoiser predicts, as if a variance had been learnt with it.
    """
    from diffusers import LatteTransformer3DModel

    channels = model.config.out_channels
    doubled = LatteTransformer3DModel.from_config({**model.config, "out_channels": 2 * channels})
    state = model.state_dict()
    for name in ("proj_out.weight", "proj_out.bias"):
        rows = state[name].unflatten(0, (-1, channels))  # pixels of a patch, channels
        state[name] = torch.cat([rows, torch.zeros_like(rows)], dim=1).flatten(0, 1)
    doubled.load_state_dict(state)
    return doubled


def build_scheduler() -> Any:
    """DDIM with velocity prediction on Stable Diffusion's schedule, stretched to end in pure noise."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
