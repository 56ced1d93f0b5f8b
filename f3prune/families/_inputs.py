"""Draw the synthetic forward arguments that the family declarations share; torch is imported only when used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from f3prune.families._base import TokenGrid

if TYPE_CHECKING:
    import torch
    from torch import nn


def config_of(denoiser: nn.Module) -> Any:
    """The denoiser's diffusers configuration (attribute access, as ``ConfigMixin.config`` gives it)."""
    return cast(Any, denoiser).config


def grid_of_patches(denoiser: nn.Module, arguments: Mapping[str, Any]) -> TokenGrid:
    """Of latents ``b c f h w`` that are cut into square patches, several frames deep if the configuration says so."""
    config = config_of(denoiser)
    frames, height, width = (int(size) for size in arguments["hidden_states"].shape[2:])
    return TokenGrid(
        frames // (getattr(config, "patch_size_t", None) or 1), height // config.patch_size, width // config.patch_size
    )


def text_tokens(default: int, width: int) -> int:
    """Prompt length of synthetic text: the pipeline's own ``default``, less for a toy encoder.

    Real encoders are wider than their prompts are long (CLIP: 768 against 77, T5: 4096 against 512), so a narrower
    ``width`` marks a toy configuration, which gets as many tokens as its embeddings have channels.
    """
    return min(default, width)


class Draw:
    """Seeded random forward arguments in a denoiser's dtype and on its device."""

    def __init__(self, denoiser: nn.Module, batch: int, generator: torch.Generator) -> None:
        self.config = config_of(denoiser)
        self.batch = batch
        self.generator = generator
        self.dtype: torch.dtype = cast(Any, denoiser).dtype
        self.device = next(denoiser.parameters()).device

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal tensor of ``shape``, drawn in fp32 so that every dtype sees the same numbers."""
        import torch

        values = torch.randn(shape, generator=self.generator, device=self.generator.device)
        return values.to(self.device, self.dtype)

    def latents(self, *shape: int) -> torch.Tensor:
        """``b …`` standard normal latents or embeddings."""
        return self.normal(self.batch, *shape)

    def full(self, value: float, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Constant tensor of ``shape``; an empty shape gives a 0-d tensor."""
        import torch

        return torch.full(shape, value, dtype=dtype or self.dtype, device=self.device)

    def padding_mask(self, tokens: int, dtype: torch.dtype) -> torch.Tensor:
        """``b tokens`` of ones, then zeros: prompts of ¾, ½ and ¼ of ``tokens``, padded on the right."""
        import torch

        lengths = [max(1, tokens - tokens * (1 + k % 3) // 4) for k in range(self.batch)]
        kept = torch.arange(tokens)[None, :] < torch.tensor(lengths)[:, None]
        return kept.to(self.device, dtype)
