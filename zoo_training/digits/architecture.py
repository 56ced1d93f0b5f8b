"""The untrained parts of the pipeline: sizes, noise schedule and initialisation."""

from __future__ import annotations

from typing import Any

import torch

from f3prune.zoo.digits.dataset import CANVAS, FRAMES
from zoo_training.digits.build_tokenizer import MAX_TOKENS

LATENT_CHANNELS = 4
LATENT_SIZE = CANVAS // 2
"""Height and width of a latent frame."""
TEXT_WIDTH = 64
HEADS, HEAD_WIDTH, LAYERS = 4, 32, 6


def build_vae() -> Any:
    """A causal 3D autoencoder: video `b c f h w` in [-1, 1] to latents `b 4 f h/2 w/2`; frames are not merged."""
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 2,
        up_block_types=("CogVideoXUpBlock3D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=4,
        temporal_compression_ratio=1,
        sample_height=CANVAS,
        sample_width=CANVAS,
        scaling_factor=1.0,
    )


def build_text_encoder(vocab_size: int) -> Any:
    """A one-layer T5 encoder: token ids `b l` (int64) to states `b l d` (float32)."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocab_size,
        d_model=TEXT_WIDTH,
        d_kv=32,
        d_ff=128,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config)


def build_transformer() -> Any:
    """The denoiser: latents `b f c h w`, text states `b l d` and timesteps `b` to a velocity `b f c h w`.

    The gates of every block and the output projection start at zero, so that training starts from the identity.
    """
    from diffusers import CogVideoXTransformer3DModel

    model = CogVideoXTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=64,
        text_embed_dim=TEXT_WIDTH,
        num_layers=LAYERS,
        sample_width=LATENT_SIZE,
        sample_height=LATENT_SIZE,
        sample_frames=FRAMES,
        patch_size=2,
        temporal_compression_ratio=1,
        max_text_seq_length=MAX_TOKENS,
        spatial_interpolation_scale=1.0,
        temporal_interpolation_scale=1.0,
    )
    for block in model.transformer_blocks:
        for norm in (block.norm1, block.norm2):
            torch.nn.init.zeros_(norm.linear.weight)
            torch.nn.init.zeros_(norm.linear.bias)
    torch.nn.init.zeros_(model.proj_out.weight)
    torch.nn.init.zeros_(model.proj_out.bias)
    return model


def build_scheduler() -> Any:
    """DDIM with velocity prediction and a last training step of pure noise, as CogVideoX-2b has it."""
    from diffusers import CogVideoXDDIMScheduler

    return CogVideoXDDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
    )
