"""One whole generation, the unit that contenders are compared by: caches skip work from one step to the next."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from f3prune.bench.contest.timed import TimedDenoiser
from f3prune.core.calls import sample_of
from f3prune.core.captured_calls import CapturedCall
from f3prune.core.errors import F3PruneError
from f3prune.families import Family, LatentShape, denoiser_component
from f3prune.pipelines.loading import load_denoiser
from f3prune.pipelines.pipeline_runs import Frames, run_prompt
from f3prune.steps._state import RunState

FLOW_FAMILIES = (
    "wan",
    "wan_vace",
    "wan_animate",
    "chronoedit",
    "anyflow",
    "helios",
    "skyreels_v2",
    "easyanimate",
    "cosmos",
    "ltx",
    "mochi",
    "hunyuan_video",
)
"""Families whose published pipelines integrate a flow; the others denoise by diffusion."""

AT_LEAST_S = 0.1
"""Untimed calls before a turn go on for so long: threads of the contender before spin for less."""


@dataclass(frozen=True)
class Made:
    """What one generation gave.

    Attributes:
        frames: ``f h w c``, float32; the video in [0, 1], or final latents as they are.
        denoising: seconds in calls of the denoiser.
        whole: seconds from prompt (or noise) to result.
        calls: of the denoiser.
    """

    frames: Frames
    denoising: float
    whole: float
    calls: int


class Generation(ABC):
    """The same prompt, seed and steps for every contender.

    Attributes:
        family: of the denoiser.
        strategy: how it generates.
        device, dtype: what PyTorch runs on and in.
        steps: denoising steps.
        what: one line for a table.
        latents: the result is latents, whose range is that of the reference.
    """

    what: str
    latents: bool

    def __init__(self, state: RunState, steps: int, device: torch.device, dtype: torch.dtype) -> None:
        self.state, self.steps, self.device, self.dtype = state, steps, device, dtype
        self.family: Family = state.family
        self.strategy = state.strategy
        # The first call: caches that are asked to skip one before they hold anything fail.
        self._call: CapturedCall = state.calls()[0]
        self.running: TimedDenoiser | None = None

    @property
    @abstractmethod
    def dense(self) -> nn.Module:
        """The dense denoiser; whoever changes it copies it first."""

    @property
    def guidance_in_batch(self) -> bool:
        """Whether one call serves both halves of guidance: a recorded call holds two samples for one video."""
        latents = self._call.arguments.get(self.family.latents)
        return torch.is_tensor(latents) and latents.shape[0] == 2 and not self.state.synthetic

    def settle(self, denoiser: TimedDenoiser) -> None:
        """Calls on recorded inputs, so that threads and caches are this contender's own. They leave no state behind."""
        if not self.strategy.has_steps:
            return
        self.running = denoiser
        inputs = {**self._call.on(self.device, self.dtype), "return_dict": False}
        until = time.perf_counter() + AT_LEAST_S
        while True:
            with torch.no_grad(), _context(denoiser), _every_step(denoiser):
                denoiser(**inputs)
            _reset(denoiser)
            if time.perf_counter() > until:
                return

    def run(self, denoiser: TimedDenoiser) -> Made:
        """Generate once, from a clean state."""
        self.running = denoiser
        _reset(denoiser)
        denoiser.restart()
        started = time.perf_counter()
        frames = self._generate(denoiser)
        whole = time.perf_counter() - started
        _reset(denoiser)
        calls = list(denoiser.seconds)
        return Made(frames, sum(calls) if calls else whole, whole, len(calls))

    @abstractmethod
    def _generate(self, denoiser: TimedDenoiser) -> Frames:
        """The result of one generation."""


class PipelineGeneration(Generation):
    """The real pipeline on the first calibration prompt, decoded to pixels."""

    latents = False

    def __init__(self, state: RunState, steps: int | None, device: torch.device, dtype: torch.dtype) -> None:
        self._pipeline = state.load_pipeline(dtype, device)
        self._component = denoiser_component(self._pipeline)
        self._settings = state.strategy.settings_of(self._pipeline, state.settings, steps)
        super().__init__(state, self._settings.steps or 0, device, dtype)
        self._dense: nn.Module = getattr(self._pipeline, self._component)
        count = f"{self.steps} steps" if self.strategy.has_steps else "token by token"
        self.what = f"{state.source.spec}: a whole video, {count}, compared by its pixels"

    @property
    def dense(self) -> nn.Module:
        return self._dense

    def _generate(self, denoiser: TimedDenoiser) -> Frames:
        # A model that draws token by token is asked for more than its forward, which is all that is timed.
        setattr(self._pipeline, self._component, denoiser if self.strategy.has_steps else denoiser.inner)
        try:
            return run_prompt(self._pipeline, self._settings, self.state.prompts[0], 0, self.family)  # type: ignore[no-any-return]
        finally:
            setattr(self._pipeline, self._component, self._dense)


class LatentGeneration(Generation):
    """A denoising loop over seeded noise and conditioning, for a denoiser that has no pipeline.

    The scheduler is DDIM with velocity prediction or, for families that are trained by flow matching, diffusers' Euler
    flow scheduler; neither blows random weights up.
    """

    latents = True

    def __init__(self, state: RunState, steps: int | None, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(state, steps or state.settings.steps or 10, device, dtype)
        self._dense = load_denoiser(state.source, dtype, device)
        settings = state.settings
        default = self.family.default_shape(self._dense.config)  # type: ignore[arg-type]
        self._shape = LatentShape(
            settings.num_frames or default.frames, settings.height or default.height, settings.width or default.width
        )
        scheduler = type(self._scheduler()).__name__
        self.what = f"{state.source.class_name}: {self.steps} steps of {scheduler}, compared by final latents"

    @property
    def dense(self) -> nn.Module:
        return self._dense

    def _scheduler(self) -> Any:
        from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

        if self.family.name in FLOW_FAMILIES:
            scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
        else:
            scheduler = DDIMScheduler(
                prediction_type="v_prediction",
                beta_schedule="scaled_linear",
                timestep_spacing="trailing",
                rescale_betas_zero_snr=True,
                clip_sample=False,
            )
        scheduler.set_timesteps(self.steps)
        return scheduler

    def _generate(self, denoiser: TimedDenoiser) -> Frames:
        generator = torch.Generator("cpu").manual_seed(self.state.settings.seed)
        inputs = self.family.synthetic_inputs(self._dense, self._shape, 1, generator)
        scheduler = self._scheduler()
        latents = inputs[self.family.latents]
        channels = self._channel_axis(latents)
        with torch.no_grad():
            for index, timestep in enumerate(scheduler.timesteps):
                inputs[self.family.latents] = latents
                inputs["timestep"] = self._timestep(inputs["timestep"], float(timestep))
                with _context(denoiser, step_index=index):
                    output = sample_of(denoiser(**inputs, return_dict=False))
                # An output may hold a variance too, an input an image to start from: what both have is denoised.
                count = min(latents.shape[channels], output.shape[channels])
                noisy = latents.narrow(channels, 0, count)
                stepped = scheduler.step(output.narrow(channels, 0, count), timestep, noisy, return_dict=False)[0]
                rest = latents.narrow(channels, count, latents.shape[channels] - count)
                latents = torch.cat([stepped.to(latents.dtype), rest], dim=channels)
        return self._frames(latents.narrow(channels, 0, count).float().cpu())

    def _timestep(self, like: Any, value: float) -> Any:
        """A timestep of 0 to 1000 in the family's unit, as the family's pipeline passes it."""
        first, last = self.family.timestep_range
        scaled = last + (first - last) * value / 1000.0
        if not torch.is_tensor(like):
            return type(like)(scaled)
        return torch.full_like(like, scaled if like.is_floating_point() else round(scaled))

    def _channel_axis(self, latents: torch.Tensor) -> int:
        return self.family.channels(latents)

    def _frames(self, latents: torch.Tensor) -> Frames:
        """``f h w c`` of the one sample."""
        if latents.ndim == 3:
            tokens = latents[0].unflatten(0, (self._shape.frames, self._shape.height, self._shape.width))
        else:
            tokens = latents[0].permute((0, 2, 3, 1) if self.family.frame_axis == 1 else (1, 2, 3, 0))
        frames: Frames = np.ascontiguousarray(tokens.numpy(), dtype=np.float32)
        return frames


def generation_of(state: RunState, steps: int | None, device: torch.device, dtype: torch.dtype) -> Generation:
    """The kind of generation that the run's model can do."""
    kind = LatentGeneration if state.source.kind == "denoiser" else PipelineGeneration
    return kind(state, steps, device, dtype)


def _context(denoiser: Any, **where: Any) -> contextlib.AbstractContextManager[Any]:
    try:
        context: contextlib.AbstractContextManager[Any] = denoiser.cache_context("cond_uncond", **where)
    except AttributeError:
        return contextlib.nullcontext()
    return context


def _every_step(denoiser: Any) -> contextlib.AbstractContextManager[Any]:
    try:
        context: contextlib.AbstractContextManager[Any] = denoiser.every_step()
    except AttributeError:
        return contextlib.nullcontext()
    return context


def _reset(denoiser: Any) -> None:
    """Make diffusers' caches forget what they hold."""
    with contextlib.suppress(AttributeError):
        denoiser._reset_stateful_cache()


def reason_of(error: BaseException) -> str:
    """One line of what went wrong."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:240] if isinstance(error, F3PruneError) else f"{type(error).__name__}: {text}"[:240]
