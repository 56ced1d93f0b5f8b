"""Frames as grids of image tokens: the interface that generation needs, and a small tokenizer that has it."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from f3prune.core.errors import InputError


class VQDecoder(Protocol):
    """What generation needs of an image tokenizer: any object with these two methods will do."""

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames ``b f h w 3`` (float in [0, 1]) to image tokens ``b f n`` (int64), row by row."""
        ...

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Image tokens ``b f n`` (int64) to frames ``b f h w 3`` (float32 in [0, 1])."""
        ...


class PatchVQ(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A convolutional VQ-VAE for grey frames whose every token stands for one square patch.

    Its encoder sees a patch and one pixel around it and nothing else, so that a picture that moves by a whole patch
    moves its tokens and changes none: normalisation over the frame, which the usual autoencoders have, would change
    every token a little. The decoder does look at the neighbours, to smooth the seams. Both are deterministic.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, image_size: int = 32, patch_size: int = 4, codebook_size: int = 128, code_width: int = 16, width: int = 64
    ) -> None:
        """``image_size``: height and width in pixels; ``patch_size``: those of a token; ``codebook_size``: K.

        Raises:
            InputError: patches do not tile the image.
        """
        super().__init__()
        if image_size % patch_size:
            raise InputError(
                f"image_size {image_size} is not a multiple of patch_size {patch_size}: choose one that is"
            )
        self.grid = image_size // patch_size
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, patch_size + 2, stride=patch_size, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 1),
            nn.GELU(),
            nn.Conv2d(width, code_width, 1),
        )
        self.codebook = nn.Parameter(torch.randn(codebook_size, code_width))
        per_pixel = 8
        self.decoder = nn.Sequential(
            nn.Conv2d(code_width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, per_pixel * patch_size**2, 1),
            nn.PixelShuffle(patch_size),
            nn.GELU(),
            nn.Conv2d(per_pixel, 1, 3, padding=1),
        )

    def latents(self, images: torch.Tensor) -> torch.Tensor:
        """Grey images ``m h w`` (float32 in [0, 1]) to unquantised codes ``m r r c``, r patches a side."""
        found: torch.Tensor = self.encoder(images[:, None])
        return found.permute(0, 2, 3, 1)

    def nearest(self, latents: torch.Tensor) -> torch.Tensor:
        """Codes ``... c`` to the tokens ``...`` (int64) of the nearest codebook rows; ties go to the lower token."""
        flat = latents.flatten(0, -2)
        # The square of the latent itself is the same for every row.
        distance = self.codebook.square().sum(dim=1) - 2.0 * flat @ self.codebook.T
        return distance.argmin(dim=1).view(latents.shape[:-1])

    def images(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes ``m r r c`` to grey images ``m h w`` (float32), about [0, 1] but not cut to it."""
        drawn: torch.Tensor = self.decoder(codes.permute(0, 3, 1, 2))
        return drawn[:, 0]

    @torch.no_grad()
    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames ``b f h w 3`` (float in [0, 1]; colours are averaged) to tokens ``b f n`` (int64, 0 to K - 1).

        Raises:
            InputError: the frames have another shape.
        """
        size = self.config["image_size"]
        if frames.ndim != 5 or frames.shape[2:] != (size, size, 3):
            raise InputError(f"frames are {list(frames.shape)}, expected [clips, frames, {size}, {size}, 3]")
        grey = frames.mean(dim=-1).to(self.codebook.dtype)
        return self.nearest(self.latents(grey.flatten(0, 1))).view(*frames.shape[:2], -1)

    @torch.no_grad()
    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens ``b f n`` (int64) to frames ``b f h w 3`` (float32 in [0, 1], three equal colours).

        Raises:
            InputError: a frame is not a whole grid of tokens, or a token is not one of the codebook.
        """
        count, size = self.config["codebook_size"], self.config["image_size"]
        if tokens.ndim != 3 or tokens.shape[2] != self.grid**2:
            raise InputError(f"tokens are {list(tokens.shape)}, expected [clips, frames, {self.grid**2}]")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < count:
            raise InputError(
                f"tokens reach from {tokens.min()} to {tokens.max()}, expected image tokens 0 to {count - 1}"
            )
        codes = F.embedding(tokens.flatten(0, 1), self.codebook).unflatten(1, (self.grid, self.grid))
        grey = self.images(codes).float().clamp(0.0, 1.0).view(*tokens.shape[:2], size, size)
        return grey[..., None].expand(-1, -1, -1, -1, 3).contiguous()
