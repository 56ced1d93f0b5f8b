"""The pipeline of Tune-A-Video: a prompt in, a video out, as diffusers' other text-to-video pipelines do it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor

from f3prune.core.errors import InputError
from f3prune.models.tune_a_video.latents import FILE, read_latents, write_latents

_UNET = ("f3prune.models", "TuneAVideoUNet")


@dataclass
class TuneAVideoPipelineOutput(BaseOutput):
    """What a call returns.

    Attributes:
        frames: ``b f h w 3`` (NumPy, float32 in [0, 1]) for ``np``, ``b f 3 h w`` for ``pt``, lists of PIL images for
            ``pil``, latents ``b c f h w`` for ``latent``.
    """

    frames: Any


class TuneAVideoPipeline(DiffusionPipeline):
    """Sampling of Tune-A-Video (arXiv 2212.11565; showlab/Tune-A-Video 7d4a89a): DDIM with classifier-free guidance.

    Args:
        vae: an image autoencoder (``AutoencoderKL``), applied frame by frame.
        text_encoder: ``CLIPTextModel``.
        tokenizer: ``CLIPTokenizer``.
        unet: ``TuneAVideoUNet``, or a stand-in for it.
        scheduler: any that predicts from one model call per step; ``steps_offset`` 1 and ``clip_sample`` off are forced
            on it, as the original does.
        num_frames: video frames when a call does not say; None: a call must say.
        inverted_sha256: hash of ``inverted.safetensors`` beside the parts. Saving sets it and loading checks it.

    Attributes:
        inverted: start latents ``1 c f h w`` (float32) from which sampling with the tuning prompt gives the tuned clip
            back, or None.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        num_frames: int | None = None,
        inverted_sha256: str | None = None,
    ) -> None:
        super().__init__()
        given = {"steps_offset": 1, "clip_sample": False}
        wrong = {key: value for key, value in given.items() if scheduler.config.get(key, value) != value}
        if wrong:
            scheduler = type(scheduler).from_config({**scheduler.config, **wrong})
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        # The public name, not the module that the class happens to live in.
        self.register_to_config(unet=_UNET, num_frames=num_frames, inverted_sha256=inverted_sha256)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.video_processor = VideoProcessor(do_resize=False, vae_scale_factor=self.vae_scale_factor)
        self.inverted: torch.Tensor | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load from a local directory that ``save_pretrained`` wrote, with its start latents if it has any.

        Raises:
            InputError: the directory does not exist.
            ArtifactError: the start latents were altered or are missing.
        """
        folder = Path(pretrained_model_name_or_path)
        if not (folder / "model_index.json").is_file():
            raise InputError(f"{folder} has no model_index.json: give the directory that `tune(...)` wrote")
        pipeline = super().from_pretrained(str(folder), **kwargs)
        if pipeline.config.inverted_sha256 is not None:
            pipeline.inverted = read_latents(folder / FILE, pipeline.config.inverted_sha256)
        return pipeline

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save all parts as safetensors, and the start latents if there are any."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        digest = None if self.inverted is None else write_latents(folder / FILE, self.inverted)
        self.register_to_config(inverted_sha256=digest)
        super().save_pretrained(folder, safe_serialization=True, **kwargs)

    def encode_prompt(self, texts: list[str]) -> torch.Tensor:
        """States ``b l d`` of prompts, padded to the tokenizer's length.

        Raises:
            InputError: a prompt is longer than that; the message says what would be cut.
        """
        length = int(self.tokenizer.model_max_length)
        for text in texts:
            ids = self.tokenizer(text).input_ids
            if len(ids) > length:
                cut = self.tokenizer.decode(ids[length - 1 : -1], skip_special_tokens=True)
                raise InputError(
                    f"prompt {text!r} has {len(ids)} tokens, and the text encoder takes {length}: "
                    f"{cut.strip()!r} would be cut off; shorten it"
                )
        tokens = self.tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt")
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self._execution_device) if uses_mask else None
        states = self.text_encoder(tokens.input_ids.to(self._execution_device), attention_mask=mask)[0]
        return states.to(self.text_encoder.dtype)  # type: ignore[no-any-return]

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: str | list[str] | None = None,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | str | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
    ) -> TuneAVideoPipelineOutput | tuple[Any]:
        """Sample videos.

        Args:
            prompt: what they show, one text per video.
            num_frames: of each video. [default: as tuned]
            height, width: in pixels. [default: as tuned]
            num_inference_steps: denoising steps.
            guidance_scale: above 1, how far predictions are pushed away from those for ``negative_prompt``.
            negative_prompt: what they do not show; empty by default.
            eta: 0 is deterministic DDIM.
            generator: of the start latents, one for all or one per video.
            latents: start latents ``b c f h w``, or ``"inverted"`` for those of the tuned clip.
            prompt_embeds, negative_prompt_embeds: text states ``b l d`` instead of texts.
            output_type: ``np``, ``pt``, ``pil`` or ``latent``.
            return_dict: an output object instead of a tuple.

        Raises:
            InputError: no prompt, sizes that do not fit, or no such latents.
        """
        if output_type not in {"np", "pt", "pil", "latent"}:
            raise InputError(f"output_type is {output_type!r}: expected np, pt, pil or latent")
        guided = guidance_scale > 1.0
        states = self._text_states(prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, guided)
        batch = states.shape[0] // (2 if guided else 1)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        sample = self._start(latents, batch, num_frames, height, width, generator, states.dtype)
        known = inspect.signature(self.scheduler.step).parameters
        extra = {name: value for name, value in (("eta", eta), ("generator", generator)) if name in known}
        with self.progress_bar(total=num_inference_steps) as bar:
            for timestep in self.scheduler.timesteps:
                doubled = torch.cat([sample, sample]) if guided else sample
                doubled = self.scheduler.scale_model_input(doubled, timestep)
                noise = self.unet(doubled, timestep, encoder_hidden_states=states, return_dict=False)[0]
                if guided:
                    without, towards = noise.chunk(2)
                    noise = without + guidance_scale * (towards - without)
                sample = self.scheduler.step(noise, timestep, sample, **extra).prev_sample
                bar.update()
        frames = sample if output_type == "latent" else self._decode(sample, output_type)
        self.maybe_free_model_hooks()
        return TuneAVideoPipelineOutput(frames) if return_dict else (frames,)

    def _text_states(
        self,
        prompt: str | list[str] | None,
        negative: str | list[str] | None,
        states: torch.Tensor | None,
        negative_states: torch.Tensor | None,
        guided: bool,
    ) -> torch.Tensor:
        """States of the negative prompts, if any, in front of those of the prompts."""
        if (prompt is None) == (states is None):
            raise InputError("give prompt or prompt_embeds, and not both")
        if states is None:
            states = self.encode_prompt([prompt] if isinstance(prompt, str) else list(prompt or ()))
        if not guided:
            return states
        if negative_states is None:
            texts = [negative or ""] * states.shape[0] if negative is None or isinstance(negative, str) else negative
            if len(texts) != states.shape[0]:
                raise InputError(f"{len(texts)} negative prompts for {states.shape[0]} prompts: give one for each")
            negative_states = self.encode_prompt(list(texts))
        return torch.cat([negative_states, states])

    def _start(
        self,
        latents: torch.Tensor | str | None,
        batch: int,
        num_frames: int | None,
        height: int | None,
        width: int | None,
        generator: Any,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        scale, config = self.vae_scale_factor, self.unet.config
        own = config.sample_size
        rows, columns = own if isinstance(own, (list, tuple)) else (own, own)
        for name, value, unit in (("num_frames", num_frames, 1), ("height", height, scale), ("width", width, scale)):
            if value is not None and (value < 1 or value % unit):
                raise InputError(f"{name} is {value}, expected a positive multiple of {unit}")
        if isinstance(latents, str):
            start = self._inverted(latents, num_frames, height, width).expand(batch, -1, -1, -1, -1)
        elif latents is not None:
            start = latents
        else:
            frames = num_frames or self.config.num_frames
            if frames is None:
                raise InputError(
                    "`num_frames` is not given, and this model was saved without a default: give it, e.g. 8"
                )
            shape = (
                batch,
                config.in_channels,
                int(frames),
                height // scale if height else rows,
                width // scale if width else columns,
            )
            start = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=dtype)
        if start.ndim != 5 or start.shape[0] != batch or start.shape[1] != config.in_channels:
            raise InputError(
                f"latents have shape {tuple(start.shape)}, expected {batch} x {config.in_channels} x frames x "
                f"height / {scale} x width / {scale}"
            )
        return start.to(self._execution_device, dtype) * self.scheduler.init_noise_sigma

    def _inverted(self, name: str, num_frames: int | None, height: int | None, width: int | None) -> torch.Tensor:
        if name != "inverted":
            raise InputError(f"`latents` is {name!r}: expected a tensor, or 'inverted' for those of the tuned clip")
        if self.inverted is None:
            raise InputError(
                "this model has no inverted latents: tune one with `tune(...)`, or leave the start latents out"
            )
        _, _, frames, rows, columns = self.inverted.shape
        own = {"frames": frames, "height": rows * self.vae_scale_factor, "width": columns * self.vae_scale_factor}
        for (what, has), asked in zip(own.items(), (num_frames, height, width), strict=True):
            if asked is not None and asked != has:
                raise InputError(
                    f"{what} is {asked}, and the inverted latents have {has}: leave it out, or start from noise"
                )
        return self.inverted

    def _decode(self, sample: torch.Tensor, output_type: str) -> Any:
        """Videos from latents ``b c f h w``, a frame at a time, so that memory does not grow with their length."""
        scaled = sample.to(self.vae.dtype) / self.vae.config.scaling_factor
        videos = torch.stack(
            [
                torch.cat([self.vae.decode(frame[None], return_dict=False)[0] for frame in video.transpose(0, 1)])
                for video in scaled
            ]
        )
        return self.video_processor.postprocess_video(videos.transpose(1, 2).float(), output_type=output_type)
