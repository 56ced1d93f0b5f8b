"""The denoiser of Tune-A-Video: an image UNet of Stable Diffusion, inflated to video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import nn

from f3prune.models.tune_a_video._config import check_config
from f3prune.models.tune_a_video._levels import DownLevel, MiddleLevel, Sizes, UpLevel
from f3prune.models.tune_a_video._resnet import VideoConv


@dataclass
class TuneAVideoUNetOutput(BaseOutput):
    """What the forward returns.

    Attributes:
        sample: predicted noise (or velocity), ``b c f h w``.
    """

    sample: torch.Tensor


class TuneAVideoUNet(ModelMixin, ConfigMixin):
    """Predicts the noise of a video's latents (Tune-A-Video, arXiv 2212.11565, §3.2; Stable Diffusion 1.x and 2.x).

    Layers, names and shapes of the weights are those of diffusers' ``UNet2DConditionModel``; each transformer block has
    ``attn_temp`` and ``norm_temp`` besides. Frames meet in three places: the temporal attention, the sparse-causal
    attention in place of spatial self-attention, and the group norms outside the transformers.

    Args:
        sample_size: height and width of the latents it was made for.
        in_channels, out_channels: of the latents.
        center_input_sample: map the input from [0, 1] to [-1, 1] first.
        flip_sin_to_cos, freq_shift: of the sinusoidal timestep embedding.
        down_block_types: ``CrossAttnDownBlock3D`` or ``DownBlock3D`` for each level, shallow to deep.
        mid_block_type: ``UNetMidBlock3DCrossAttn``.
        up_block_types: ``CrossAttnUpBlock3D`` or ``UpBlock3D`` for each level, deep to shallow.
        block_out_channels: channels of each level, shallow to deep.
        layers_per_block: layers of each level on the way down; one more on the way up.
        downsample_padding: of the strided convolutions.
        mid_block_scale_factor: the middle ResNet blocks divide their output by it.
        norm_num_groups, norm_eps: of the group norms.
        cross_attention_dim: channels of the text embeddings.
        attention_head_dim: **number** of attention heads, one for all levels or one for each, shallow to deep. The name
            is the published one.
        use_linear_projection: project into and out of the transformers by linear layers instead of 1 × 1 convolutions.
        upcast_attention: kept for the configuration's sake; attention scores accumulate in fp32 in any case.
        act_fn, only_cross_attention, dual_cross_attention, class_embed_type, num_class_embeds,
        resnet_time_scale_shift: found in published configurations; only these defaults are supported, as in the
            original.

    Raises:
        InputError: the configuration says what the original cannot do either.
    """

    config_name = "config.json"
    _supports_gradient_checkpointing = True
    _no_split_modules = ("VideoTransformerBlock", "VideoResnet")
    _skip_layerwise_casting_patterns = ("norm", "time_embedding")

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        center_input_sample: bool = False,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        down_block_types: Sequence[str] = (
            "CrossAttnDownBlock3D",
            "CrossAttnDownBlock3D",
            "CrossAttnDownBlock3D",
            "DownBlock3D",
        ),
        mid_block_type: str = "UNetMidBlock3DCrossAttn",
        up_block_types: Sequence[str] = (
            "UpBlock3D",
            "CrossAttnUpBlock3D",
            "CrossAttnUpBlock3D",
            "CrossAttnUpBlock3D",
        ),
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 768,
        attention_head_dim: int | Sequence[int] = 8,
        use_linear_projection: bool = False,
        upcast_attention: bool = False,
        only_cross_attention: bool = False,
        dual_cross_attention: bool = False,
        class_embed_type: str | None = None,
        num_class_embeds: int | None = None,
        resnet_time_scale_shift: str = "default",
    ) -> None:
        super().__init__()
        heads = check_config(self.config)
        widths, levels = list(block_out_channels), len(block_out_channels)
        sizes = Sizes(
            time_channels=4 * widths[0],
            text_channels=cross_attention_dim,
            groups=norm_num_groups,
            eps=norm_eps,
            linear_projection=use_linear_projection,
            upcast_attention=upcast_attention,
        )
        self.conv_in = VideoConv(in_channels, widths[0], 3, padding=1)
        self.time_proj = Timesteps(widths[0], flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(widths[0], sizes.time_channels)
        self.down_blocks = nn.ModuleList(
            DownLevel(
                sizes,
                channels=widths[max(0, level - 1)],
                out_channels=widths[level],
                layers=layers_per_block,
                heads=heads[level] if kind.startswith("CrossAttn") else None,
                padding=downsample_padding if level < levels - 1 else None,
            )
            for level, kind in enumerate(down_block_types)
        )
        self.mid_block = MiddleLevel(sizes, widths[-1], heads[-1], mid_block_scale_factor)
        self.up_blocks = nn.ModuleList(
            UpLevel(
                sizes,
                channels=widths[min(levels - 1, level + 1)],
                # The skips of a level are its layers' outputs and, last, what came down from the level above.
                skip_channels=[widths[level]] * layers_per_block + [widths[max(0, level - 1)]],
                out_channels=widths[level],
                heads=heads[level] if kind.startswith("CrossAttn") else None,
                upsample=level > 0,
            )
            for level, kind in zip(reversed(range(levels)), up_block_types, strict=True)
        )
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, widths[0], eps=norm_eps)
        self.conv_out = VideoConv(widths[0], out_channels, 3, padding=1)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor,
        return_dict: bool = True,
    ) -> TuneAVideoUNetOutput | tuple[torch.Tensor]:
        """Predict the noise in ``sample``.

        Args:
            sample: noisy latents ``b c f h w``, floating point; any number of frames, any height and width.
            timestep: one for all videos, or one for each (``b``).
            encoder_hidden_states: text embeddings ``b t d``, floating point.
            return_dict: return an output object instead of a tuple.

        Returns:
            The prediction ``b c f h w``.
        """
        if self.config.center_input_sample:
            sample = 2 * sample - 1
        time = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(sample.shape[0])
        time = self.time_embedding(self.time_proj(time).to(sample.dtype))
        text = encoder_hidden_states

        video = self.conv_in(sample)
        skips = [video]
        for down in self.down_blocks:
            skips += down(skips[-1], time, text)
        video = self.mid_block(skips[-1], time, text)
        for up in self.up_blocks:
            video = up(video, time, text, skips)
        output = self.conv_out(F.silu(self.conv_norm_out(video)))
        return TuneAVideoUNetOutput(sample=output) if return_dict else (output,)

    @classmethod
    def from_2d(
        cls, source: nn.Module | str | Path, zero_bias: bool = True, variant: str | None = None
    ) -> TuneAVideoUNet:
        """Inflate an image UNet: its weights as they are, and fresh temporal attention that adds nothing yet.

        As in the original, ``attn_temp.to_out.0.weight`` starts at zero and ``norm_temp`` at the identity. The original
        leaves ``attn_temp.to_out.0.bias`` at the framework's random values, so that its inflated model differs from the
        image model from the start. Here the bias is zero too: a video of one frame gives what the image model gives.

        Args:
            source: a ``UNet2DConditionModel`` of any number of levels, or its directory (``config.json``, safetensors).
            zero_bias: ``False`` draws the bias as the original does, from PyTorch's global generator.
            variant: of the weight files in the directory.

        Returns:
            A model of its own in evaluation mode; dtype and device of a model given, else fp32 on the CPU.

        Raises:
            InputError: the directory has no safetensors, the configuration has no video counterpart, or tensors are
                missing, left over or of another shape.
        """
        from f3prune.models.tune_a_video._weights import inflate

        return inflate(cls, source, zero_bias, variant)

    @classmethod
    def from_published(cls, directory: str | Path, variant: str | None = None) -> TuneAVideoUNet:
        """Load the ``unet`` folder of a Tune-A-Video checkpoint as its training script saves it (diffusers 0.11 names).

        Args:
            directory: holds ``config.json`` and ``diffusion_pytorch_model.safetensors`` or ``.bin``; the latter is read
                as tensors alone (``torch.load(weights_only=True)``).
            variant: of the weight files.

        Returns:
            The model in evaluation mode, in fp32 on the CPU.

        Raises:
            InputError: a file is missing or holds something else, or tensors are missing, left over or of another
                shape.
        """
        from f3prune.models.tune_a_video._weights import load_published

        return load_published(cls, directory, variant)
