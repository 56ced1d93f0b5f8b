"""The smallest pipelines of several families, with random weights, saved as diffusers saves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from f3prune.core.weights import randomize_weights
from f3prune.testing import TINY_SHAPES, tiny_denoiser
from zoo_training.digits.build_tokenizer import build_tokenizer

WIDTH = 16


def t5(width: int = WIDTH) -> tuple[Any, Any]:
    tokenizer = build_tokenizer()
    config = transformers.T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return tokenizer, transformers.T5EncoderModel(config).eval()


def clip(width: int = WIDTH) -> tuple[Any, Any]:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=8
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=16,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
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


def animatediff() -> Any:
    torch.manual_seed(0)
    config = {
        "sample_size": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (16, 24),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
    }
    adapter = diffusers.MotionAdapter(
        block_out_channels=(16, 24),
        motion_layers_per_block=1,
        motion_norm_num_groups=4,
        motion_num_attention_heads=4,
        motion_max_seq_length=8,
    )
    randomize_weights(adapter)
    tokenizer, encoder = clip()
    return diffusers.AnimateDiffPipeline(
        vae=image_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=diffusers.UNet2DConditionModel(**config),
        motion_adapter=adapter,
        scheduler=diffusers.DDIMScheduler(),
    )


def modelscope() -> Any:
    tokenizer, encoder = clip()
    return diffusers.TextToVideoSDPipeline(
        vae=image_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=tiny_denoiser("modelscope"),
        scheduler=diffusers.DDIMScheduler(),
    )


def svd() -> Any:
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=16,
        projection_dim=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=112,
    )
    return diffusers.StableVideoDiffusionPipeline(
        vae=diffusers.AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 2,
            block_out_channels=(32, 32),
            latent_channels=4,
            layers_per_block=1,
        ).eval(),
        image_encoder=transformers.CLIPVisionModelWithProjection(config).eval(),
        unet=tiny_denoiser("svd"),
        scheduler=diffusers.EulerDiscreteScheduler(
            timestep_type="continuous",
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            interpolation_type="linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        feature_extractor=transformers.CLIPImageProcessor(),
    )


def latte() -> Any:
    tokenizer, encoder = t5()
    return diffusers.LattePipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=image_vae(),
        transformer=tiny_denoiser("latte"),
        scheduler=diffusers.DDIMScheduler(),
    )


def wan() -> Any:
    tokenizer, _ = t5()
    config = transformers.UMT5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return diffusers.WanPipeline(
        tokenizer=tokenizer,
        text_encoder=transformers.UMT5EncoderModel(config).eval(),
        vae=diffusers.AutoencoderKLWan(
            base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
        ).eval(),
        transformer=tiny_denoiser("wan"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def wan_vace() -> Any:
    base = wan()
    return diffusers.WanVACEPipeline(
        tokenizer=base.tokenizer,
        text_encoder=base.text_encoder,
        vae=base.vae,
        transformer=tiny_denoiser("wan_vace"),
        scheduler=base.scheduler,
    )


def anyflow() -> Any:
    base = wan()
    return diffusers.AnyFlowPipeline(
        tokenizer=base.tokenizer,
        text_encoder=base.text_encoder,
        transformer=tiny_denoiser("anyflow"),
        vae=base.vae,
        scheduler=diffusers.FlowMapEulerDiscreteScheduler(shift=3.0),
    )


def helios() -> Any:
    base = wan()
    return diffusers.HeliosPipeline(
        tokenizer=base.tokenizer,
        text_encoder=base.text_encoder,
        vae=base.vae,
        scheduler=diffusers.HeliosScheduler(stages=1, stage_range=[0, 1], gamma=1 / 3),
        transformer=tiny_denoiser("helios"),
    )


def chronoedit() -> Any:
    base, image = wan(), svd()
    denoiser = tiny_denoiser("chronoedit")
    # Beside the latents come a mask, four channels, and the image's latents; and the image by cross-attention.
    changes = {"in_channels": 12, "image_dim": WIDTH, "added_kv_proj_dim": 48}
    transformer = type(denoiser)(**{**denoiser.config, **changes})
    randomize_weights(transformer)
    return diffusers.ChronoEditPipeline(
        tokenizer=base.tokenizer,
        text_encoder=base.text_encoder,
        image_encoder=transformers.CLIPVisionModel(image.image_encoder.config).eval(),
        image_processor=image.feature_extractor,
        transformer=transformer.eval(),
        vae=base.vae,
        scheduler=base.scheduler,
    )


def skyreels_forcing() -> Any:
    base = wan()
    return diffusers.SkyReelsV2DiffusionForcingPipeline(
        tokenizer=base.tokenizer,
        text_encoder=base.text_encoder,
        vae=base.vae,
        transformer=tiny_denoiser("skyreels_v2"),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
        ),
    )


def ltx(cls: Any = diffusers.LTXPipeline) -> Any:
    tokenizer, encoder = t5()
    return cls(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=diffusers.AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
        ).eval(),
        transformer=tiny_denoiser("ltx"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=cls is diffusers.LTXPipeline, shift=3.0
        ),
    )


def consisid() -> Any:
    tokenizer, encoder = t5()
    face = tiny_denoiser("consisid")
    # With a face, the pipeline wants embeddings of it that no command line has.
    transformer = type(face)(**{**face.config, "is_train_face": False})
    randomize_weights(transformer)
    return diffusers.ConsisIDPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=diffusers.AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(4, 4, 4, 4),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        ).eval(),
        transformer=transformer.eval(),
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )


def easyanimate() -> Any:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'][0]['text'] }}{% endfor %}"
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=256,
    )
    return diffusers.EasyAnimatePipeline(
        vae=diffusers.AutoencoderKLMagvit(
            latent_channels=4, block_out_channels=[4, 4, 4, 4], layers_per_block=1, norm_num_groups=2
        ).eval(),
        text_encoder=transformers.BertModel(config).eval(),
        tokenizer=tokenizer,
        transformer=tiny_denoiser("easyanimate"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


class NoGuardrail(ModelMixin, ConfigMixin):
    """Lets everything pass. Cosmos asks for a checker, and the real one is a package with weights of its own."""

    config_name = "config.json"

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def cosmos() -> Any:
    tokenizer, encoder = t5(32)
    return diffusers.CosmosTextToWorldPipeline(
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=tiny_denoiser("cosmos"),
        vae=diffusers.AutoencoderKLCosmos(
            latent_channels=4,
            encoder_block_out_channels=(8, 8, 8, 8),
            decode_block_out_channels=(8, 8, 8, 8),
            attention_resolutions=(),
            resolution=32,
            num_layers=1,
            latents_mean=None,
            latents_std=None,
        ).eval(),
        scheduler=diffusers.EDMEulerScheduler(
            sigma_min=0.002, sigma_max=80, sigma_data=0.5, prediction_type="epsilon", final_sigmas_type="sigma_min"
        ),
        safety_checker=NoGuardrail(),
    )


MAKERS: dict[str, tuple[Callable[[], Any], dict[str, int]]] = {
    "animatediff": (animatediff, {"num_frames": 3, "height": 8, "width": 16}),
    "modelscope": (modelscope, {"num_frames": 3, "height": 8, "width": 8}),
    "svd": (svd, {"num_frames": 3, "height": 8, "width": 16}),
    "latte": (latte, {"num_frames": 3, "height": 8, "width": 8}),
    "wan": (wan, {"num_frames": 9, "height": 32, "width": 48}),
    "ltx": (ltx, {"num_frames": 17, "height": 64, "width": 96}),
    "wan_vace": (wan_vace, {"num_frames": 9, "height": 32, "width": 48}),
    "anyflow": (anyflow, {"num_frames": 9, "height": 32, "width": 48}),
    "helios": (helios, {"num_frames": 33, "height": 32, "width": 48}),
    "chronoedit": (chronoedit, {"num_frames": 5, "height": 32, "width": 48}),
    "consisid": (consisid, {"num_frames": 9, "height": 32, "width": 48}),
    "easyanimate": (easyanimate, {"num_frames": 9, "height": 32, "width": 48}),
    "cosmos": (cosmos, {"num_frames": 17, "height": 32, "width": 48}),
}
"""Family -> maker and sizes of a small video of it, in frames and pixels."""
WITH_IMAGES = ("svd", "wan_vace", "consisid", "chronoedit")
"""Families whose prompts have an image here."""
CALIBRATED_ALONE = ("anyflow", "helios", "chronoedit")
"""Families whose blocks go the whole way in another's pipeline, and whose own is calibrated alone."""


def save(family: str, folder: Path) -> Path:
    """Save the tiny pipeline of a family."""
    make, _ = MAKERS[family]
    torch.manual_seed(0)
    make().save_pretrained(folder)
    return folder


__all__ = ["CALIBRATED_ALONE", "MAKERS", "TINY_SHAPES", "WITH_IMAGES", "save"]
