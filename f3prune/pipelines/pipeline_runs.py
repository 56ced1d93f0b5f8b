"""Run a diffusers pipeline for one prompt, the same way for every family."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from f3prune.core.errors import F3PruneError, InputError, reason_of
from f3prune.families import Family, denoiser_component
from f3prune.pipelines.prompts import Prompt

Frames = npt.NDArray[np.float32]
"""A video ``f h w 3``, float32 in [0, 1]."""

_FRAMES_NAMES = ("num_frames", "video_length")
_GUIDANCE_NAMES = ("guidance_scale", "max_guidance_scale")
_REFERENCE_IMAGES = "reference_images"


@dataclass(frozen=True)
class GenerationSettings:
    """How a pipeline is called; ``None`` leaves a value to the pipeline.

    Attributes:
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        height, width: pixels (latent units for a denoiser alone).
        num_frames: video frames (latent frames for a denoiser alone).
        seed: prompt number k runs with ``seed + k``.
        latents: ``inverted`` starts from the latents of the clip that a model was tuned on; None and ``random`` do not.
    """

    steps: int | None = None
    guidance: float | None = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    seed: int = 0
    latents: str | None = None

    def __post_init__(self) -> None:
        """Raises ``InputError`` for a value no model can take."""
        for name in ("steps", "height", "width", "num_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"`{name}` is {value}: give a whole number of at least 1")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise InputError(f"`guidance` is {self.guidance}: give a number of at least 0, e.g. 6")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"`seed` is {self.seed}: give a whole number between 0 and 2^63 - 1")


def parameters_of(pipeline: Any) -> dict[str, inspect.Parameter]:
    """The pipeline call's parameters by name."""
    return dict(inspect.signature(type(pipeline).__call__).parameters)


def default_steps(pipeline: Any) -> int:
    """Denoising steps when nobody says otherwise."""
    parameter = parameters_of(pipeline).get("num_inference_steps")
    return int(parameter.default) if parameter is not None and isinstance(parameter.default, int) else 50


def takes_image(pipeline: Any) -> bool:
    """Whether the pipeline can be conditioned on an image."""
    return not {"image", _REFERENCE_IMAGES}.isdisjoint(parameters_of(pipeline))


def needs_image(pipeline: Any) -> bool:
    """Whether the pipeline makes nothing without an image: it asks for one first, or must have an encoder.

    One that says of its first argument that it may be None makes something without (Cosmos 2.5).
    """
    parameters = parameters_of(pipeline)
    if "image" not in parameters:
        return False
    first = next(name for name in parameters if name != "self")
    encoder = inspect.signature(type(pipeline).__init__).parameters.get("image_encoder")
    required = encoder is not None and encoder.default is inspect.Parameter.empty
    image = parameters["image"]
    optional = type(None) in typing.get_args(image.annotation)
    return (first == "image" and not optional) or image.default is inspect.Parameter.empty or required


def call_arguments(
    pipeline: Any, settings: GenerationSettings, prompt: Prompt, index: int, family: Family
) -> dict[str, Any]:
    """Keyword arguments for ``pipeline(...)``, prompt number ``index``.

    Raises:
        InputError: the pipeline does not take a setting that was given, or needs an image and the prompt has none.
    """
    known = parameters_of(pipeline)
    arguments: dict[str, Any] = dict(family.pipeline_arguments(pipeline))
    arguments["generator"] = torch.Generator("cpu").manual_seed(settings.seed + index)
    name = type(pipeline).__name__

    def put(option: str, value: Any, *names: str) -> None:
        if value is None:
            return
        for parameter in names:
            if parameter in known:
                arguments[parameter] = value
                return
        raise InputError(f"{option} {value!r} has no meaning for {name}, which takes no {names[0]}: leave it out")

    put("`steps`", settings.steps, "num_inference_steps")
    put("`guidance`", settings.guidance, *_GUIDANCE_NAMES)
    put("`height`", settings.height, "height")
    put("`width`", settings.width, "width")
    put("`num_frames`", settings.num_frames, *_FRAMES_NAMES)
    put("negative_prompt", prompt.negative, "negative_prompt")
    if settings.latents == "inverted":
        if not hasattr(pipeline, "inverted"):
            raise InputError(f"`latents='inverted'` has no meaning for {name}, which was not tuned: leave it out")
        arguments["latents"] = settings.latents
    if prompt.image is not None:
        if not takes_image(pipeline):
            raise InputError(f"prompt {index + 1} has an image, and {name} takes none: leave it out")
        if "image" in known:
            arguments["image"] = _open_image(prompt)
        else:
            arguments[_REFERENCE_IMAGES] = [_open_image(prompt)]
            arguments |= family.reference_arguments(1)
    elif needs_image(pipeline):
        raise InputError(
            f"{name} makes video from an image, and prompt {index + 1} has none: "
            f'give `prompts`, a .jsonl file with lines {{"prompt": "…", "image": "picture.png"}}'
        )
    if "prompt" in known:
        arguments["prompt"] = prompt.text
    return arguments


def _open_image(prompt: Prompt) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(str(prompt.image)) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"image {prompt.image} cannot be read: give a PNG or JPEG file") from error


def check_size(pipeline: Any, settings: GenerationSettings, family: Family) -> None:
    """Refuse sizes that the model would round or fail on.

    Raises:
        InputError: the pipeline would make another size; names the nearest ones that it makes.
    """
    config = getattr(pipeline, denoiser_component(pipeline)).config
    spatial = _attribute(
        pipeline,
        "vae_scale_factor_spatial",
        "vae_spatial_compression_ratio",
        "vae_spatial_scale_factor",
        "vae_scale_factor",
    )
    _check_multiple("height", settings.height, spatial * _patch(config.get("patch_size")))
    _check_multiple("width", settings.width, spatial * _patch(config.get("patch_size")))
    frames = settings.num_frames
    temporal = _attribute(
        pipeline, "vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor"
    )
    if frames is not None and not family.whole_windows and family.frames_made(frames, temporal) != frames:
        reach = range(1, 4 * temporal)
        lower = [frames - k for k in reach if frames > k and family.frames_made(frames - k, temporal) == frames - k]
        upper = [frames + k for k in reach if family.frames_made(frames + k, temporal) == frames + k]
        nearest = " or ".join(str(count) for count in (*lower[:1], *upper[:1]))
        raise InputError(
            f"`num_frames` is {frames}, a count that {type(pipeline).__name__} does not make: try {nearest}"
        )


def check_latent_size(config: Mapping[str, Any], settings: GenerationSettings) -> None:
    """The same for a denoiser alone, whose sizes are latent units.

    Raises:
        InputError: a size is no multiple of the patch, or start latents are asked for.
    """
    if settings.latents == "inverted":
        raise InputError("`latents='inverted'` needs a tuned pipeline, and the model is a denoiser alone: leave it out")
    _check_multiple("height", settings.height, _patch(config.get("patch_size")))
    _check_multiple("width", settings.width, _patch(config.get("patch_size")))
    temporal = config.get("patch_size_t")
    _check_multiple("num_frames", settings.num_frames, temporal if isinstance(temporal, int) else 1)


def _check_multiple(name: str, value: int | None, unit: int) -> None:
    if value is not None and value % unit:
        low = max(unit, value // unit * unit)
        raise InputError(f"`{name}` is {value}, expected a multiple of {unit}: try {low} or {low + unit}")


def _attribute(pipeline: Any, *names: str) -> int:
    for name in names:
        value = getattr(pipeline, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 1


def _patch(value: Any) -> int:
    """Patch edge in latent units; ``(time, height, width)`` patches are square."""
    if isinstance(value, (list, tuple)):
        return int(value[-1])
    return int(value) if isinstance(value, int) else 1


@contextlib.contextmanager
def mapped_errors(what: str) -> Iterator[None]:
    """What a pipeline raises over its arguments, as one line."""
    try:
        yield
    except F3PruneError:
        raise
    except torch.OutOfMemoryError as error:
        raise InputError(f"{what} ran out of GPU memory: give a smaller `height`, `width` or `num_frames`") from error
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        reason = reason_of(error, 240)
        raise InputError(f"{what} refused its input ({reason}): check the sizes, the steps and the prompts") from error


def run_prompt(
    pipeline: Any,
    settings: GenerationSettings,
    prompt: Prompt,
    index: int,
    family: Family,
    on_step: Callable[[], None] = lambda: None,
    decode: bool = True,
    whole: bool = False,
) -> Any:
    """Generate for prompt number ``index``.

    Args:
        pipeline: of a supported family.
        settings: how to call it.
        prompt: what to generate.
        index: k, for the seed ``seed + k``.
        family: of its denoiser, which may be a stand-in that runs on an engine.
        on_step: called after every call of the denoiser's first guidance half.
        decode: without it the latents are thrown away and None comes back.
        whole: give the pipeline's whole output instead.

    Returns:
        Frames ``f h w 3``, float32 in [0, 1].

    Raises:
        InputError: the pipeline refuses the settings, or made another size than was asked for.
    """
    check_size(pipeline, settings, family)
    arguments = call_arguments(pipeline, settings, prompt, index, family)
    known = parameters_of(pipeline)
    if "output_type" in known:
        arguments["output_type"] = "np" if decode else "latent"
    with mapped_errors(type(pipeline).__name__), torch.no_grad(), watch_steps(pipeline, on_step):
        output = pipeline(**arguments)
    if whole:
        return output
    if not decode:
        return None
    frames = to_frames(output.frames if hasattr(output, "frames") else output[0])
    check_made(frames, settings, type(pipeline).__name__, family.whole_windows)
    return frames


def check_made(frames: Frames, settings: GenerationSettings, name: str, whole_windows: bool = False) -> None:
    """What was asked for is what was made, whatever a pipeline rounds that ``check_size`` does not know of.

    Of a pipeline that makes ``whole_windows``, at least so many frames.
    """
    for option, made in zip(("num_frames", "height", "width"), frames.shape, strict=False):
        asked = getattr(settings, option)
        if asked is not None and asked != made and not (whole_windows and option == "num_frames" and made > asked):
            raise InputError(f"`{option}` is {asked}, and {name} made {made}: give {made}, or another size")


@contextlib.contextmanager
def watch_steps(pipeline: Any, on_step: Callable[[], None]) -> Iterator[None]:
    """Call ``on_step`` whenever the scheduler has taken a step: the one thing all pipelines do once per step."""
    if hasattr(pipeline, "watching_tokens"):
        with pipeline.watching_tokens(on_step):
            yield
        return
    scheduler = getattr(pipeline, "scheduler", None)
    if scheduler is None:
        yield
        return
    cls = type(scheduler)
    original = cls.step
    counted: list[Any] = []
    reached: list[Any] = [None]

    # Pipelines look at the signature of scheduler.step to see whether it takes eta and generator.
    @functools.wraps(original)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        # Pipelines that step every frame by itself have a copy of the scheduler for each: one of them counts.
        if not counted:
            counted.append(self)
        if self is counted[0]:
            index = getattr(self, "_step_index", None)
            # Cosmos steps once for the clean sample, sets the index back, and steps again.
            if index is None or index != reached[0]:
                on_step()
            reached[0] = index
        return result

    # A class of its own and no attribute of the object: a copy of the object then steps itself, not the original.
    scheduler.__class__ = type(cls.__name__, (cls,), {"step": step, "__module__": cls.__module__})
    try:
        yield
    finally:
        scheduler.__class__ = cls


def to_frames(output: Any) -> Frames:
    """The first video of a pipeline's output as ``f h w 3``, float32 in [0, 1].

    Raises:
        InputError: the output has no such form, or is not finite (a half-precision overflow).
    """
    video = output[0]
    if torch.is_tensor(video):
        video = video.detach().float().cpu().numpy()
        if video.ndim == 4 and video.shape[-1] != 3 and video.shape[1] == 3:
            video = video.transpose(0, 2, 3, 1)
    array = np.asarray(video if isinstance(video, np.ndarray) else np.stack([np.asarray(frame) for frame in video]))
    if array.ndim != 4 or array.shape[-1] != 3:
        raise InputError(f"the pipeline gave a video of shape {array.shape}, expected frames x height x width x 3")
    frames = array.astype(np.float32) / (255.0 if array.dtype == np.uint8 else 1.0)
    if not np.isfinite(frames).all():
        raise InputError("the pipeline gave pixels that are not finite: use `dtype='fp32'` or `'bf16'` instead of fp16")
    return np.clip(frames, 0.0, 1.0)
