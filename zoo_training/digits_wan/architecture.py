"""The untrained parts of the pipeline: sizes and initialisation."""

from __future__ import annotations

from typing import Any

import torch

from f3prune.zoo.digits_wan.dataset import CANVAS, FRAMES, vocabulary
from zoo_training.digits.build_tokenizer import build_tokenizer as tokenizer_of

LATENT_CHANNELS = 8
SPACE, TIME = 4, 4
"""Pixels to a latent row or column, frames to a latent frame."""
LATENT_SIZE = CANVAS // SPACE
"""Height and width of a latent frame."""
LATENT_FRAMES = (FRAMES - 1) // TIME + 1
FLOW_SHIFT = 3.0
"""More noise for more tokens: sigmas are moved towards 1 by it, in training of whole clips and in sampling."""
TEXT_WIDTH, MAX_TOKENS = 128, 24
"""Width of the text states, and tokens that prompts are padded to, the end-of-text token included."""
HEADS, HEAD_WIDTH, LAYERS, FEED_FORWARD = 6, 64, 6, 896


def build_vae(mean: list[float] | None = None, deviation: list[float] | None = None) -> Any:
    """Wan's causal autoencoder, small: video ``b 3 f h w`` in [-1, 1] to latents ``b 8 (f-1)/4+1 h/4 w/4``.

    Args:
        mean, deviation: of every latent channel, from trained weights; the pipeline takes them off and puts them back.
    """
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=mean or [0.0] * LATENT_CHANNELS,
        latents_std=deviation or [1.0] * LATENT_CHANNELS,
        scale_factor_temporal=TIME,
        scale_factor_spatial=SPACE,
    )


def build_transformer(layers: int = LAYERS) -> Any:
    """The denoiser: latents ``b c f h w``, text states ``b l d`` and timesteps ``b`` to a velocity ``b c f h w``.

    The output projection starts at zero, so that training starts from a velocity of zero.
    """
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=256,
        ffn_dim=FEED_FORWARD,
        num_layers=layers,
        rope_max_seq_len=64,
    )
    torch.nn.init.zeros_(model.proj_out.weight)
    torch.nn.init.zeros_(model.proj_out.bias)
    return model


def build_tokenizer() -> Any:
    """A tokenizer that knows the words of the prompts."""
    return tokenizer_of(vocabulary(), MAX_TOKENS)


def build_text_encoder(words: int) -> Any:
    """A one-layer UMT5 encoder for a vocabulary of ``words``: token ids ``b l`` (int64) to states ``b l d``."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=words,
        d_model=TEXT_WIDTH,
        d_kv=32,
        d_ff=256,
        num_layers=1,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config)


def build_scheduler() -> Any:
    """UniPC over a flow, shifted as Wan's is at this size."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=FLOW_SHIFT
    )
