"""The smallest useful denoiser of every family, with seeded random weights under which every site matters.

Used by tests and demonstrations. A tiny denoiser has at least two sites, several heads and a latent video of at least
three token frames whose height and width differ where the class allows it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from f3prune.core.errors import InputError
from f3prune.core.weights import randomize_weights
from f3prune.families import LatentShape, registry
from f3prune.families.classes import denoiser_class

_COGVIDEOX: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 16,
    "text_embed_dim": 16,
    "num_layers": 2,
    "sample_width": 6,
    "sample_height": 4,
    "sample_frames": 9,
    "max_text_seq_length": 5,
}
_WAN: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}
_COSMOS: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "mlp_ratio": 2.0,
    "text_embed_dim": 32,
    "adaln_lora_dim": 8,
    "max_size": (8, 16, 16),
    # The mask is resized by torchvision, which needs a build for the installed PyTorch.
    "concat_padding_mask": False,
}
_UNET_3D: dict[str, Any] = {
    "sample_size": 4,
    "down_block_types": ("CrossAttnDownBlock3D",),
    "up_block_types": ("CrossAttnUpBlock3D",),
    "block_out_channels": (16,),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    # Named after what it used to be: the blocks take it for the size of a head, and have 16 / 4 heads.
    "attention_head_dim": 4,
}

_CONFIGS: dict[str, dict[str, Any]] = {
    "animatediff": {
        "sample_size": 4,
        "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
        "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        "block_out_channels": (16, 24),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 16,
        "num_attention_heads": 2,
        "motion_num_attention_heads": 4,
        "motion_max_seq_length": 8,
    },
    "modelscope": _UNET_3D,
    "latte": {
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "cross_attention_dim": 32,
        "attention_bias": True,
        "sample_size": 4,
        "patch_size": 2,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "caption_channels": 16,
        "video_length": 3,
    },
    "svd": {
        "sample_size": 4,
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal",),
        "up_block_types": ("CrossAttnUpBlockSpatioTemporal",),
        "block_out_channels": (32,),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "num_attention_heads": 4,
        "num_frames": 3,
    },
    "i2vgen_xl": _UNET_3D,
    "tune_a_video": {
        "sample_size": 4,
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
    },
    "cogvideox": _COGVIDEOX,
    "cogvideox-rotary": {**_COGVIDEOX, "use_rotary_positional_embeddings": True},
    "cogvideox-1.5": {
        **_COGVIDEOX,
        "use_rotary_positional_embeddings": True,
        "patch_size_t": 2,
        "patch_bias": False,
        "sample_frames": 21,
    },
    "consisid": {
        **_COGVIDEOX,
        "in_channels": 8,
        "use_rotary_positional_embeddings": True,
        "is_train_face": True,
        "cross_attn_dim_head": 8,
        "cross_attn_num_heads": 2,
        "LFE_id_dim": 8,
        "LFE_vit_dim": 8,
        "LFE_depth": 2,
        "LFE_dim_head": 4,
        "LFE_num_heads": 2,
        "LFE_num_id_token": 2,
        "LFE_num_querie": 3,
        "LFE_output_dim": 42,
        "LFE_ff_mult": 2,
        "LFE_num_scale": 2,
    },
    "easyanimate": {
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "patch_size": 2,
        "sample_width": 6,
        "sample_height": 4,
        "num_layers": 2,
        "mmdit_layers": 2,
        "time_embed_dim": 16,
        "text_embed_dim": 16,
    },
    "wan": _WAN,
    "skyreels_v2": _WAN,
    "wan_vace": {**_WAN, "vace_layers": [0, 1], "vace_in_channels": 72},
    "wan_animate": {
        **_WAN,
        "in_channels": 12,
        "latent_channels": 4,
        "image_dim": None,
        "motion_encoder_channel_sizes": {"4": 8, "8": 8},
        "motion_encoder_size": 8,
        "motion_style_dim": 8,
        "motion_dim": 4,
        "motion_encoder_dim": 8,
        "face_encoder_hidden_dim": 8,
        "face_encoder_num_heads": 2,
        "inject_face_latents_blocks": 2,
        "motion_encoder_batch_size": 4,
    },
    "chronoedit": _WAN,
    "anyflow": _WAN,
    "helios": {
        **{key: value for key, value in _WAN.items() if key != "rope_max_seq_len"},
        "rope_dim": (4, 4, 4),
        "is_amplify_history": True,
    },
    "ltx": {
        "in_channels": 8,
        "out_channels": 8,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
        "num_layers": 2,
        "caption_channels": 16,
    },
    "ltx2": {
        "in_channels": 8,
        "out_channels": 8,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
        "gated_attn": True,
        "cross_attn_mod": True,
        "audio_in_channels": 6,
        "audio_out_channels": 6,
        "audio_num_attention_heads": 4,
        "audio_attention_head_dim": 4,
        "audio_cross_attention_dim": 16,
        "audio_scale_factor": 8,
        "audio_gated_attn": True,
        "audio_cross_attn_mod": True,
        "num_layers": 2,
        "rope_type": "split",
        # Rounding of the angles grows with it, and random weights make much of that.
        "rope_theta": 100.0,
        "use_prompt_embeddings": False,
    },
    "mochi": {
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_layers": 2,
        "pooled_projection_dim": 24,
        "in_channels": 4,
        "text_embed_dim": 16,
        "time_embed_dim": 16,
        "max_sequence_length": 8,
    },
    "hunyuan_video": {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 8,
        "pooled_projection_dim": 8,
        "rope_axes_dim": (4, 2, 2),
    },
    "hunyuan_video15": {
        "in_channels": 9,
        "out_channels": 4,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 8,
        "text_embed_2_dim": 6,
        "image_embed_dim": 5,
        "rope_axes_dim": (4, 2, 2),
    },
    "framepack": {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 8,
        "pooled_projection_dim": 8,
        "rope_axes_dim": (4, 2, 2),
        "has_image_proj": True,
        "image_proj_dim": 5,
        "has_clean_x_embedder": True,
    },
    "kandinsky5": {
        "in_visual_dim": 4,
        "out_visual_dim": 4,
        "in_text_dim": 8,
        "in_text_dim2": 6,
        "time_dim": 16,
        "model_dim": 32,
        "ff_dim": 32,
        "num_text_blocks": 1,
        "num_visual_blocks": 2,
        "axes_dims": (4, 2, 2),
    },
    "allegro": {
        "num_attention_heads": 4,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "cross_attention_dim": 48,
        "sample_height": 4,
        "sample_width": 6,
        "sample_frames": 3,
        "caption_channels": 16,
    },
    "cosmos": _COSMOS,
    "cosmos-2.5": {
        **_COSMOS,
        "in_channels": 5,
        "extra_pos_embed_type": None,
        "use_crossattn_projection": True,
        "crossattn_proj_in_channels": 16,
        "encoder_hidden_states_channels": 32,
        "img_context_dim_in": 16,
        "img_context_num_tokens": 3,
        "img_context_dim_out": 64,
    },
}

TINY_SHAPES: dict[str, LatentShape] = {
    "animatediff": LatentShape(3, 4, 6),
    "modelscope": LatentShape(3, 4, 6),
    "latte": LatentShape(3, 4, 4),
    "svd": LatentShape(3, 4, 6),
    "i2vgen_xl": LatentShape(3, 4, 6),
    "tune_a_video": LatentShape(3, 4, 6),
    "cogvideox": LatentShape(3, 4, 6),
    "cogvideox-rotary": LatentShape(3, 4, 6),
    "cogvideox-1.5": LatentShape(6, 4, 6),
    "consisid": LatentShape(3, 4, 6),
    "easyanimate": LatentShape(3, 4, 6),
    "wan": LatentShape(3, 4, 6),
    "skyreels_v2": LatentShape(3, 4, 6),
    "wan_vace": LatentShape(3, 4, 6),
    "wan_animate": LatentShape(3, 4, 6),
    "chronoedit": LatentShape(3, 4, 6),
    "anyflow": LatentShape(3, 4, 6),
    "helios": LatentShape(3, 4, 6),
    "ltx": LatentShape(3, 2, 3),
    "ltx2": LatentShape(3, 2, 3),
    "mochi": LatentShape(3, 4, 6),
    "hunyuan_video": LatentShape(3, 4, 6),
    "hunyuan_video15": LatentShape(3, 2, 3),
    "framepack": LatentShape(3, 4, 8),
    "kandinsky5": LatentShape(3, 4, 6),
    "allegro": LatentShape(3, 4, 6),
    "cosmos": LatentShape(3, 4, 6),
    "cosmos-2.5": LatentShape(3, 4, 6),
}
"""A good small latent shape for each name in ``VARIANTS``."""

VARIANTS: tuple[str, ...] = tuple(TINY_SHAPES)
"""Every name that ``tiny_denoiser`` takes: the families, and variants of them after a dash."""


def family_name(variant: str) -> str:
    """The family that a variant belongs to: ``cogvideox-1.5`` is a ``cogvideox``."""
    return variant.partition("-")[0]


def tiny_denoiser(variant: str, seed: int = 0) -> nn.Module:
    """A denoiser of the family's class: eval mode, fp32, CPU, the same weights for the same seed.

    Raises:
        InputError: no family or variant has this name.
    """
    if variant not in _CONFIGS:
        raise InputError(f"unknown tiny denoiser {variant!r}: expected one of {', '.join(VARIANTS)}")
    cls = denoiser_class(registry()[family_name(variant)].denoiser_class)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser: nn.Module = cls(**_CONFIGS[variant])
    randomize_weights(denoiser, seed)
    return denoiser.eval()
