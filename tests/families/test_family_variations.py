"""Published variations of a family's configuration run with its synthetic inputs and keep its sites."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_trace import record
from torch import nn

from f3prune.core.weights import randomize_weights
from f3prune.families import LatentShape, family_of, registry
from f3prune.families.classes import denoiser_class
from f3prune.testing import TINY_SHAPES, tiny_denoiser


def varied(variant: str, changes: dict[str, Any]) -> nn.Module:
    denoiser = tiny_denoiser(variant)
    config = {k: v for k, v in denoiser.config.items() if not k.startswith("_")}
    other: nn.Module = type(denoiser)(**{**config, **changes})
    randomize_weights(other, 0)
    return other.eval()


TEXTS = ("encoder_hidden_states", "encoder_hidden_states_2", "image_embeds")

VARIATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "CogVideoX-5b-I2V": ("cogvideox-rotary", {"in_channels": 8, "use_learned_positional_embeddings": True}),
    "CogVideoX1.5-5B-I2V": ("cogvideox-1.5", {"in_channels": 8, "ofs_embed_dim": 16}),
    "Wan2.1-I2V": ("wan", {"in_channels": 9, "image_dim": 16, "added_kv_proj_dim": 48}),
    "Wan2.1-FLF2V": ("wan", {"image_dim": 16, "added_kv_proj_dim": 48, "pos_embed_seq_len": 6}),
    "SkyReels-V2-I2V": ("skyreels_v2", {"in_channels": 9, "image_dim": 16, "added_kv_proj_dim": 48}),
    "HunyuanVideo-I2V": ("hunyuan_video", {"image_condition_type": "token_replace", "guidance_embeds": False}),
    "HunyuanVideo-I2V-33ch": ("hunyuan_video", {"in_channels": 9, "image_condition_type": "latent_concat"}),
    "LTX-2.0": (
        "ltx2",
        {
            "gated_attn": False,
            "cross_attn_mod": False,
            "audio_gated_attn": False,
            "audio_cross_attn_mod": False,
            "rope_type": "interleaved",
            "use_prompt_embeddings": True,
            "caption_channels": 16,
        },
    ),
    "LTX-2.5": ("ltx2", {"ff_bias": False, "use_prompt_adaln_single": False, "perturbed_attn": True}),
    "Kandinsky 5 I2V": ("kandinsky5", {"visual_cond": True}),
    "HunyuanVideo-1.5 T2V": ("hunyuan_video15", {"task_type": "t2v"}),
    "HunyuanVideo-1.5 SR": ("hunyuan_video15", {"use_meanflow": True}),
    "HunyuanVideo, two frames per token": ("hunyuan_video", {"patch_size_t": 2}),
    "ConsisID without a face": ("consisid", {"is_train_face": False}),
    "EasyAnimate-InP": ("easyanimate", {"in_channels": 9}),
    "Wan2.2-Animate": ("wan_animate", {"image_dim": 16, "added_kv_proj_dim": 48}),
    "Cosmos-Predict2-Video2World": ("cosmos", {"in_channels": 5, "extra_pos_embed_type": None}),
    "Cosmos-Predict2.5": ("cosmos-2.5", {"img_context_dim_in": None}),
    "Helios without history": ("helios", {"has_multi_term_memory_patch": False, "is_amplify_history": False}),
    "AnimateDiff without mid-block motion": ("animatediff", {"use_motion_mid_block": False}),
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_published_variation(name: str) -> None:
    variant, changes = VARIATIONS[name]
    denoiser = varied(variant, changes)
    family = family_of(denoiser)
    shape = TINY_SHAPES[variant]
    if changes.get("patch_size_t") == 2:
        shape = LatentShape(2 * shape.frames, shape.height, shape.width)
    inputs = family.synthetic_inputs(denoiser, shape, 2, torch.Generator().manual_seed(0))
    output, calls = record(denoiser, inputs)
    assert output.isfinite().all()
    grid = family.token_grid(denoiser, inputs)
    for site in family.find_sites(denoiser):
        tokens = calls[site.name][0].key.shape[2]
        text = sum(inputs[name].shape[1] for name in TEXTS if name in inputs) if family.text != "none" else 0
        text = 0 if family.name == "helios" else text
        text = grid.references * grid.tokens_per_frame if grid.references else text
        assert tokens == (grid.frames if family.layout == "temporal" else grid.video_tokens + text)


def test_block_causal_skyreels_gives_its_sites_a_mask() -> None:
    denoiser = varied("skyreels_v2", {"num_frame_per_block": 3})
    denoiser.register_to_config(num_frame_per_block=3)
    family = family_of(denoiser)
    inputs = family.synthetic_inputs(denoiser, LatentShape(6, 4, 6), 1, torch.Generator().manual_seed(0))
    _, calls = record(denoiser, inputs)
    mask = calls["blocks.0.attn1"][0].mask
    assert mask is not None
    assert mask.shape == (1, 1, 36, 36)
    assert not mask[0, 0, 0, 18:].any()


# Sites of the classes' default configurations, which are those of the published models.
DEFAULT_SITES = {
    "animatediff": 42,
    "modelscope": 34,
    "svd": 16,
    "i2vgen_xl": 34,
    "cogvideox": 30,
    "wan": 40,
    "skyreels_v2": 32,
    "wan_vace": 48,
    "wan_animate": 40,
    "chronoedit": 40,
    "anyflow": 40,
    "helios": 40,
    "consisid": 30,
    "easyanimate": 48,
    "ltx": 28,
    "kandinsky5": 32,
    "ltx2": 48,
    "mochi": 48,
    "hunyuan_video": 60,
    "hunyuan_video15": 54,
    "framepack": 60,
    "allegro": 32,
    "tune_a_video": 16,
}
# What a class has no default of.
WITHOUT_DEFAULT = {"easyanimate": {"in_channels": 16, "out_channels": 16, "patch_size": 2}}


@pytest.mark.parametrize("name", DEFAULT_SITES)
def test_sites_at_full_size(name: str) -> None:
    with torch.device("meta"):
        denoiser = denoiser_class(registry()[name].denoiser_class)(**WITHOUT_DEFAULT.get(name, {}))
    assert len(registry()[name].find_sites(denoiser)) == DEFAULT_SITES[name]
