"""Text encoders and an autoencoder of a few numbers, shared by tiny pipelines."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers

from zoo_training.digits.build_tokenizer import build_tokenizer

WIDTH = 16


def t5(width: int = WIDTH) -> tuple[Any, Any]:
    tokenizer = build_tokenizer()
    config = transformers.T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return tokenizer, transformers.T5EncoderModel(config).eval()


def clip(width: int = WIDTH, positions: int = 8) -> tuple[Any, Any]:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=positions
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=16,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=positions,
        bos_token_id=0,
        eos_token_id=1,
    )
    return tokenizer, transformers.CLIPTextModel(config).eval()


def image_vae() -> Any:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=8,
    ).eval()


def gemma(width: int = 8) -> tuple[Any, Any]:
    tokenizer = build_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 8,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    begin, image, end = (len(tokenizer) - 1 - k for k in range(3))
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        boi_token_index=begin,
        image_token_index=image,
        eoi_token_index=end,
    )
    return tokenizer, transformers.Gemma3ForConditionalGeneration(config).eval()
