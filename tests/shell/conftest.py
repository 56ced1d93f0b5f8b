"""A tiny text-to-video pipeline on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CogVideoX with two sites of four heads: 9 frames of 32 x 48 pixels are 3 latent frames of 4 x 6."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline
    from transformers import T5Config, T5EncoderModel

    from f3prune.testing import tiny_denoiser
    from zoo_training.digits.build_tokenizer import build_tokenizer

    torch.manual_seed(0)
    transformer = tiny_denoiser("cogvideox")
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    tokenizer = build_tokenizer()
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    pipeline = CogVideoXPipeline(
        tokenizer, T5EncoderModel(config).eval(), vae.eval(), transformer, CogVideoXDDIMScheduler()
    )
    folder = tmp_path_factory.mktemp("model") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def own_engine_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds an engine that another one built."""
    monkeypatch.setenv("F3PRUNE_CACHE", str(tmp_path / "cache"))
