"""The training-free accelerators that diffusers ships: they skip work from one denoising step to the next.

All run on the dense PyTorch model through ``enable_cache``, whatever their own library supports; what it refuses is
listed with its own words. The first setting of each is the one that diffusers documents, the second skips more.
"""

from __future__ import annotations

import contextlib
import logging
import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from f3prune.bench.contenders._base import BenchContext, Contender, Missing, Opened

_SKIPPED_TIMESTEPS = (100, 800)


@dataclass(frozen=True)
class _Cache(Contender):
    """A diffusers cache."""

    def missing(self, context: BenchContext) -> Missing | None:
        title = context.family.denoiser_class
        if not hasattr(context.dense(), "enable_cache"):
            reason = f"{title} has no enable_cache: diffusers offers its caches to CacheMixin models"
            return Missing("not applicable", reason)
        return None

    @contextlib.contextmanager
    def opened(self, context: BenchContext) -> Iterator[Opened]:
        denoiser: Any = context.dense()
        facts: dict[str, Any] = {}
        with quiet_diffusers():
            denoiser.enable_cache(self._configure(context, denoiser, facts))
        if not _hooks(denoiser):
            raise ValueError(f"diffusers found nothing in {type(denoiser).__name__} to apply it to")
        yield Opened(denoiser, facts)

    @abstractmethod
    def _configure(self, context: BenchContext, denoiser: Any, facts: dict[str, Any]) -> Any:
        """diffusers' configuration of the method."""


@dataclass(frozen=True)
class PyramidAttentionBroadcast(_Cache):
    """Attention outputs are used again in the following steps (arXiv 2408.12588).

    Attributes:
        every: spatial and temporal attention is computed at every so many steps, text attention at twice as many.
    """

    kind: ClassVar[str] = "pyramid-attention-broadcast"
    every: int = 2

    @property
    def name(self) -> str:
        return f"Pyramid Attention Broadcast, every {self.every}"

    def _configure(self, context: BenchContext, denoiser: Any, facts: dict[str, Any]) -> Any:
        from diffusers import PyramidAttentionBroadcastConfig

        return PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=self.every,
            temporal_attention_block_skip_range=self.every,
            cross_attention_block_skip_range=2 * self.every,
            spatial_attention_timestep_skip_range=_SKIPPED_TIMESTEPS,
            temporal_attention_timestep_skip_range=_SKIPPED_TIMESTEPS,
            cross_attention_timestep_skip_range=_SKIPPED_TIMESTEPS,
            current_timestep_callback=context.timestep,
        )


@dataclass(frozen=True)
class FasterCache(_Cache):
    """Attention is extrapolated from two steps, guidance's other half from its spectrum (arXiv 2410.19355).

    Attributes:
        every: attention is computed at every so many steps.
    """

    kind: ClassVar[str] = "faster-cache"
    every: int = 2

    @property
    def name(self) -> str:
        return f"FasterCache, every {self.every}"

    def missing(self, context: BenchContext) -> Missing | None:
        if context.family.channel_axis is not None:
            return Missing("not applicable", "diffusers' FasterCache knows no latents with channels last")
        return super().missing(context)

    def _configure(self, context: BenchContext, denoiser: Any, facts: dict[str, Any]) -> Any:
        from diffusers import FasterCacheConfig

        return FasterCacheConfig(
            spatial_attention_block_skip_range=self.every,
            temporal_attention_block_skip_range=self.every,
            attention_weight_callback=lambda _: 0.3,
            tensor_format="BFCHW" if context.family.frame_axis == 1 else "BCFHW",
            is_guidance_distilled=not context.guidance_in_batch,
            current_timestep_callback=context.timestep,
        )


@dataclass(frozen=True)
class FirstBlockCache(_Cache):
    """All blocks but the first are skipped while the first one's residual changes little.

    Attributes:
        threshold: relative change of the residual up to which they are.
    """

    kind: ClassVar[str] = "first-block-cache"
    threshold: float = 0.05

    @property
    def name(self) -> str:
        return f"FirstBlockCache, {self.threshold:g}"

    def _configure(self, context: BenchContext, denoiser: Any, facts: dict[str, Any]) -> Any:
        from diffusers import FirstBlockCacheConfig

        return FirstBlockCacheConfig(threshold=self.threshold)


@dataclass(frozen=True)
class MagCache(_Cache):
    """All blocks are skipped while the residual's magnitude is known to change little.

    Its ratios belong to one model and schedule: one dense generation measures them first.

    Attributes:
        threshold: accumulated error up to which steps are skipped.
    """

    kind: ClassVar[str] = "mag-cache"
    threshold: float = 0.06

    @property
    def name(self) -> str:
        return f"MagCache, {self.threshold:g}"

    def _configure(self, context: BenchContext, denoiser: Any, facts: dict[str, Any]) -> Any:
        from diffusers import MagCacheConfig

        started = time.perf_counter()
        ratios = _magnitude_ratios(context, denoiser)
        facts["calibration_seconds"] = time.perf_counter() - started
        facts["mag_ratios"] = ratios
        return MagCacheConfig(threshold=self.threshold, num_inference_steps=context.steps, mag_ratios=ratios)


def _magnitude_ratios(context: BenchContext, denoiser: Any) -> list[float]:
    """What MagCache's calibration would print, read from its hook before it is thrown away."""
    from diffusers import MagCacheConfig
    from diffusers.hooks.hooks import StateManager

    # With one step more than there are, the hook never thinks that it is done, prints nothing and forgets nothing.
    config = MagCacheConfig(calibrate=True, num_inference_steps=context.steps + 1)
    denoiser.enable_cache(config)
    kept: list[list[float]] = []
    managers = {
        id(value): value
        for hook in _hooks(denoiser)
        for value in vars(hook).values()
        if isinstance(value, StateManager)
    }.values()

    def keep(manager: Any) -> None:
        kept.extend(list(state.calibration_ratios) for state in manager._state_cache.values())
        type(manager).reset(manager)

    for manager in managers:
        # A pipeline resets the hooks when it is done, and the ratios with them.
        manager.reset = lambda manager=manager: keep(manager)
    context.warm_up(denoiser)
    for manager in managers:
        keep(manager)
    denoiser.disable_cache()
    if not kept or len(kept[0]) < context.steps:
        raise ValueError(f"MagCache saw {len(kept[0]) if kept else 0} of {context.steps} steps while calibrating")
    return kept[0][: context.steps]


def _hooks(denoiser: Any) -> list[Any]:
    """What diffusers put on the denoiser's modules."""
    registries = [getattr(module, "_diffusers_hook", None) for module in denoiser.modules()]
    return [hook for registry in registries if registry is not None for hook in registry.hooks.values()]


@contextlib.contextmanager
def quiet_diffusers() -> Iterator[None]:
    """No warnings that a method is experimental; errors still come through."""
    logger = logging.getLogger("diffusers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
