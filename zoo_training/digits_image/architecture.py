"""The untrained parts of the pipeline: sizes and noise schedule."""

from __future__ import annotations

from typing import Any

import torch

from f3prune.zoo.digits.dataset import CANVAS
from zoo_training.digits_image.build_tokenizer import MAX_TOKENS

LATENT_CHANNELS = 4
LATENT_SIZE = CANVAS // 2
"""Height and width of the latents."""
TEXT_WIDTH = 64
HEADS = 4


def build_vae() -> Any:
    """An autoencoder: images `b c h w` in [-1, 1] to latents `b 4 h/2 w/2`."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=CANVAS,
        scaling_factor=1.0,
    )


def build_text_encoder(tokenizer: Any) -> Any:
    """A one-layer CLIP text encoder: token ids `b l` (int64) to states `b l d` (float32)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config)


def build_unet() -> Any:
    """The denoiser: latents `b c h w`, timesteps `b` and text states `b l d` to a noise `b c h w`.

    Cross-attention on both levels, so that inflation to video gives it seven temporal attentions. The output starts
    at zero.
    """
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(40, 80),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    return unet


def build_scheduler() -> Any:
    """DDIM on Stable Diffusion's noise schedule, predicting the noise, which is what DDIM inversion needs."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
