"""A few calls of the denoiser, recorded while a pipeline ran: example inputs for export, parity and timing.

``calls.safetensors`` holds the tensors as ``<call>/<argument>[/<part>]``; the metadata tells how to put them together.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from f3prune.core.calls import bind_arguments, step_of
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import parse_json
from f3prune.core.weights.safetensors_stream import save_streaming

FORMAT = "1"
FILE = "calls.safetensors"


@dataclass(frozen=True)
class CapturedCall:
    """One denoiser call.

    Attributes:
        timestep: of the schedule, as the denoiser got it.
        arguments: forward arguments by name: tensors, numbers, or tuples and dicts of them; nothing that was None.
    """

    timestep: float
    arguments: Mapping[str, Any]

    def on(self, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """The arguments on ``device``, floating-point tensors in ``dtype``."""
        return {name: _move(value, device, dtype) for name, value in self.arguments.items()}


def _move(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if torch.is_tensor(value):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, tuple):
        return tuple(_move(item, device, dtype) for item in value)
    if isinstance(value, dict):
        return {key: _move(item, device, dtype) for key, item in value.items()}
    return value


@contextlib.contextmanager
def watching(denoiser: nn.Module, see: Callable[[float, dict[str, Any]], None]) -> Iterator[None]:
    """Call ``see(timestep, arguments)`` before every call of ``denoiser`` made inside the block.

    Arguments are by name, defaults included, and no copies.
    """

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = bind_arguments(module, args, kwargs)
        see(step_of(arguments.get("timestep", 0.0)), arguments)

    handle = denoiser.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


CALLS = 4
"""Recorded of a generation, unless another number is asked for."""


class Capture:
    """Records the first call at each of ``CALLS`` timesteps spread evenly over ``steps``.

    Attributes:
        calls: the recorded ones.
        text_lengths: numbers of text tokens over all calls, recorded or not.
    """

    def __init__(self, denoiser: nn.Module, steps: int) -> None:
        self.denoiser = denoiser
        wanted = torch.linspace(0, steps - 1, min(CALLS, steps))
        self._wanted = {round(float(step)) for step in wanted}
        self._seen: list[float] = []
        self.calls: list[CapturedCall] = []
        self.text_lengths: set[int] = set()

    @contextlib.contextmanager
    def recording(self) -> Iterator[Capture]:
        """Record while the block runs."""
        with watching(self.denoiser, self._see):
            yield self

    def _see(self, timestep: float, arguments: dict[str, Any]) -> None:
        if (length := _text_length(arguments)) is not None:
            self.text_lengths.add(length)
        if timestep in self._seen:
            return
        self._seen.append(timestep)
        if len(self._seen) - 1 in self._wanted:
            self.calls.append(CapturedCall(timestep, plain_arguments(arguments)))


class _StoppedError(Exception):
    """Raised inside a generation of which only the first call matters."""


def first_text_length(denoiser: nn.Module, generate: Callable[[], None]) -> int | None:
    """The number of text tokens in the first call of ``denoiser`` that ``generate`` makes, which is stopped there.

    None where the denoiser is called without text.
    """
    found: list[int | None] = []

    def see(timestep: float, arguments: dict[str, Any]) -> None:
        del timestep
        found.append(_text_length(arguments))
        raise _StoppedError

    with watching(denoiser, see), contextlib.suppress(_StoppedError):
        generate()
    return found[0] if found else None


def _text_length(arguments: Mapping[str, Any]) -> int | None:
    text = arguments.get("encoder_hidden_states")
    return int(text.shape[1]) if torch.is_tensor(text) and text.ndim == 3 else None


def record_calls(
    denoiser: nn.Module, denoise: Callable[[], None], count: int = CALLS
) -> list[tuple[float, dict[str, Any]]]:
    """Timestep and arguments of calls of ``denoiser``, spread evenly over what ``denoise`` runs.

    Args:
        denoiser: that ``denoise`` calls, through a pipeline or alone.
        denoise: a whole generation.
        count: at most so many calls, the first at each of as many timesteps.

    Returns:
        For each call its timestep and its forward arguments by name.

    Examples:
        >>> from f3prune.calibration import denoise_synthetic
        >>> from f3prune.testing import TINY_SHAPES, tiny_denoiser
        >>> wan = tiny_denoiser("wan")
        >>> calls = record_calls(wan, lambda: denoise_synthetic(wan, TINY_SHAPES["wan"], steps=6), count=2)
        >>> len(calls), calls[0][0] > calls[1][0], "hidden_states" in calls[0][1]
        (2, True, True)
    """
    seen: dict[float, dict[str, Any]] = {}

    def see(timestep: float, arguments: dict[str, Any]) -> None:
        if timestep not in seen:
            seen[timestep] = plain_arguments(arguments)

    with watching(denoiser, see), torch.no_grad():
        denoise()
    every = list(seen.items())
    places = torch.linspace(0, len(every) - 1, min(count, len(every))).round().int().tolist()
    return [(every[place][0], {**every[place][1], "return_dict": False}) for place in places]


def plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of the arguments that say something: no None, no ``return_dict``."""
    kept = {name: _copy(value) for name, value in arguments.items() if value is not None and name != "return_dict"}
    return {name: value for name, value in kept.items() if value is not None}


def _copy(value: Any) -> Any:
    """A detached copy, or None for what cannot be recorded (callables, empty containers)."""
    if torch.is_tensor(value):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        items = tuple(_copy(item) for item in value)
        return items if items and all(item is not None for item in items) else None
    if isinstance(value, dict):
        entries = {str(key): _copy(item) for key, item in value.items() if item is not None}
        return entries if entries and all(item is not None for item in entries.values()) else None
    return None


def save_calls(calls: list[CapturedCall], path: Path) -> None:
    """Write ``calls.safetensors``.

    Raises:
        InputError: there are none.
    """
    if not calls:
        raise InputError("no denoiser call was seen: the pipeline never ran its denoiser")
    tensors: dict[str, torch.Tensor] = {}
    header = [
        {
            "timestep": call.timestep,
            "arguments": {k: _pack(v, f"{index}/{k}", tensors) for k, v in call.arguments.items()},
        }
        for index, call in enumerate(calls)
    ]
    save_streaming(tensors, path, {"format": FORMAT, "calls": json.dumps(header, sort_keys=True)})


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    if torch.is_tensor(value):
        tensors[name] = value.clone()
        return {"tensor": name}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, dict):
        return {"dict": {key: _pack(item, f"{name}/{key}", tensors) for key, item in value.items()}}
    return {"value": value}


def load_calls(path: Path) -> list[CapturedCall]:
    """Read what ``save_calls`` wrote.

    Raises:
        ArtifactError: missing, cut short, or of another version.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ArtifactError(f"{path} has another format: run `calibrate(...)` again")
            return [
                CapturedCall(float(call["timestep"]), {name: _unpack(v, file) for name, v in call["arguments"].items()})
                for call in parse_json(metadata["calls"])
            ]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is not readable ({error}): run `calibrate(...)` again") from error


def _unpack(value: dict[str, Any], file: Any) -> Any:
    ((kind, content),) = value.items()
    if kind == "tensor":
        return file.get_tensor(content)
    if kind == "tuple":
        return tuple(_unpack(item, file) for item in content)
    if kind == "dict":
        return {key: _unpack(item, file) for key, item in content.items()}
    return content
