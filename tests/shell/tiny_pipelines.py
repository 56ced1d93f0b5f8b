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
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from tiny_parts import WIDTH, clip, gemma, image_vae, t5

from f3prune.core.weights import randomize_weights
from f3prune.testing import TINY_SHAPES, tiny_denoiser
from zoo_training.digits.build_tokenizer import build_tokenizer


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


def ltx2() -> Any:
    width = 8
    tokenizer, encoder = gemma(width)
    denoiser = tiny_denoiser("ltx2")
    return diffusers.LTX2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        tokenizer=tokenizer,
        text_encoder=encoder,
        connectors=LTX2TextConnectors(
            caption_channels=width,
            text_proj_in_factor=2,
            video_connector_num_attention_heads=4,
            video_connector_attention_head_dim=8,
            video_connector_num_layers=1,
            video_connector_num_learnable_registers=None,
            audio_connector_num_attention_heads=4,
            audio_connector_attention_head_dim=4,
            audio_connector_num_layers=1,
            audio_connector_num_learnable_registers=None,
            connector_rope_base_seq_len=32,
            rope_double_precision=False,
            rope_type="split",
            per_modality_projections=True,
            video_hidden_dim=denoiser.config.cross_attention_dim,
            audio_hidden_dim=denoiser.config.audio_cross_attention_dim,
        ).eval(),
        transformer=denoiser,
        vae=diffusers.AutoencoderKLLTX2Video(
            latent_channels=denoiser.config.in_channels,
            block_out_channels=(8,),
            decoder_block_out_channels=(8,),
            layers_per_block=(1,),
            decoder_layers_per_block=(1, 1),
            spatio_temporal_scaling=(True,),
            decoder_spatio_temporal_scaling=(True,),
            decoder_inject_noise=(False, False),
            downsample_type=("spatial",),
            upsample_residual=(False,),
            upsample_factor=(1,),
            timestep_conditioning=False,
            patch_size=1,
            patch_size_t=1,
            encoder_causal=True,
            decoder_causal=False,
        ).eval(),
        # Two channels of 12 / 4 bands are the six that the denoiser takes.
        audio_vae=diffusers.AutoencoderKLLTX2Audio(
            base_channels=denoiser.config.audio_in_channels,
            output_channels=2,
            ch_mult=(1,),
            num_res_blocks=1,
            attn_resolutions=None,
            in_channels=2,
            resolution=32,
            latent_channels=2,
            norm_type="pixel",
            causality_axis="height",
            dropout=0.0,
            mid_block_add_attention=False,
            sample_rate=16000,
            mel_hop_length=160,
            is_causal=True,
            mel_bins=12,
        ).eval(),
        vocoder=LTX2Vocoder(
            in_channels=24,
            hidden_channels=32,
            out_channels=2,
            upsample_kernel_sizes=[4, 4],
            upsample_factors=[2, 2],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3, 5]],
            output_sampling_rate=16000,
        ).eval(),
    )


def hunyuan_video15() -> Any:
    tokenizer = build_tokenizer()
    # The pipeline cuts off the first 108 tokens, where the system's message stands for models with more words.
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] * 2 }} {% endfor %}"
    denoiser = tiny_denoiser("hunyuan_video15")
    config = transformers.Qwen2_5_VLTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=denoiser.config.text_embed_dim,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_scaling={"rope_type": "default", "mrope_section": [1, 1, 0]},
    )
    glyphs, glyph_encoder = t5(denoiser.config.text_embed_2_dim)
    return diffusers.HunyuanVideo15Pipeline(
        text_encoder=transformers.Qwen2_5_VLTextModel(config).eval(),
        tokenizer=tokenizer,
        text_encoder_2=glyph_encoder,
        tokenizer_2=glyphs,
        transformer=denoiser,
        vae=diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=denoiser.config.out_channels,
            block_out_channels=(8, 8, 8, 8, 8),
            layers_per_block=1,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    )


def framepack() -> Any:
    # The template of prompts is a hundred tokens of which the pipeline cuts 95: letters are tokens enough.
    tokenizer, _ = clip(positions=512)
    tokenizer_2, encoder_2 = clip(8, positions=77)
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    vision = transformers.SiglipVisionConfig(
        hidden_size=5, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=16
    )
    return diffusers.HunyuanVideoFramepackPipeline(
        tokenizer=tokenizer,
        text_encoder=transformers.LlamaModel(text).eval(),
        tokenizer_2=tokenizer_2,
        text_encoder_2=encoder_2,
        transformer=tiny_denoiser("framepack"),
        vae=diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=2,
            mid_block_add_attention=False,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        image_encoder=transformers.SiglipVisionModel(vision).eval(),
        feature_extractor=transformers.SiglipImageProcessor(size={"height": 32, "width": 32}),
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
    "ltx2": (ltx2, {"num_frames": 5, "height": 32, "width": 32}),
    "hunyuan_video15": (hunyuan_video15, {"num_frames": 9, "height": 32, "width": 48}),
    "framepack": (framepack, {"num_frames": 33, "height": 32, "width": 64}),
}
"""Family -> maker and sizes of a small video of it, in frames and pixels."""
FRAMES_MADE = {"framepack": 37}
"""Where it is not the number that is asked for."""
WITH_IMAGES = ("svd", "wan_vace", "consisid", "framepack", "chronoedit")
"""Families whose prompts have an image here."""
CALIBRATED_ALONE = ("anyflow", "helios", "chronoedit")
"""Families whose blocks go the whole way in another's pipeline, and whose own is calibrated alone."""


def save(family: str, folder: Path) -> Path:
    """Save the tiny pipeline of a family."""
    make, _ = MAKERS[family]
    torch.manual_seed(0)
    make().save_pretrained(folder)
    return folder


__all__ = ["CALIBRATED_ALONE", "FRAMES_MADE", "MAKERS", "TINY_SHAPES", "WITH_IMAGES", "save"]
