"""Frames token by token: positions, caches and biases of a sequence under way, for the model or for its engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from f3prune.core.errors import InputError
from f3prune.models.cogvideo import masks
from f3prune.models.cogvideo.cache import LayerCache
from f3prune.models.cogvideo.config import CogVideoConfig
from f3prune.models.cogvideo.model import Step, StepBiases


class TokenModel(Protocol):
    """What generates tokens: ``CogVideo``, or an engine of it."""

    @property
    def shape(self) -> CogVideoConfig:
        """Hyperparameters."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it takes its inputs."""
        ...

    def prefill(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        text_mask: torch.Tensor,
        times: Sequence[int] | None = None,
        log_text: float | torch.Tensor = 0.0,
        spatial_only: bool = False,
    ) -> tuple[torch.Tensor | None, list[LayerCache]]:
        """See ``CogVideo.prefill``; an engine gives no logits."""
        ...

    def bind(self, caches: Sequence[LayerCache], spatial_only: bool = False) -> Step:
        """See ``CogVideo.bind``."""
        ...


class Decoding:
    """A batch of sequences under way.

    Use: ``for each new frame: begin_frame()``, then F times ``step(token)``, where the first token is begin-of-image.

    Attributes:
        prefill_logits: ``b (t + k F) v`` of the text and the given frames; None from an engine.
        cache_bytes: memory that keys and values hold for the frame under way.
    """

    def __init__(
        self,
        model: TokenModel,
        text: torch.Tensor,
        text_mask: torch.Tensor,
        frames: torch.Tensor,
        times: Sequence[int],
        begin_of_image: int,
        log_text: float | torch.Tensor = 0.0,
        spatial_only: bool = False,
    ) -> None:
        """Run the prefill.

        Args:
            model: see ``TokenModel``.
            text: ``b t`` int64, padded on the left.
            text_mask: ``b t``, 0 for padding.
            frames: ``b k F`` int64 image tokens of the frames that are given, in storage order; k may be 0.
            times: time index of every frame, the given ones first, in the order in which they are made.
            begin_of_image: token of every frame's first slot.
            log_text: see ``masks.text_bias``; the steps raise both channels, the prefill the spatial one only.
            spatial_only: see ``CogVideo.prefill``.

        Raises:
            InputError: frames of another length than the model's, or more given than ``times`` lists.
        """
        shape = model.shape
        if frames.ndim != 3 or frames.shape[2] != shape.frame_len or frames.shape[1] > len(times):
            raise InputError(
                f"given frames have shape {list(frames.shape)}, expected batch x at most {len(times)} x "
                f"{shape.frame_len} tokens"
            )
        device = model.device
        text, text_mask, frames = (tensor.to(device) for tensor in (text, text_mask, frames))
        log_text = log_text.to(device) if torch.is_tensor(log_text) else log_text
        self._model, self._shape, self._spatial_only = model, shape, spatial_only
        self._times, self._made = list(times), int(frames.shape[1])
        self._text_mask, self._log_text = text_mask, log_text
        self.begin_of_image = begin_of_image
        inputs = frames.roll(1, dims=2)
        inputs[:, :, 0] = begin_of_image
        tokens = torch.cat([text, inputs.flatten(1)], dim=1)
        video = [position for time in self._times[: self._made] for position in shape.frame_positions(time)]
        positions = torch.cat(
            [text_positions(text_mask), torch.tensor(video, device=device).long().expand(text.shape[0], -1)], dim=1
        )
        with torch.no_grad():
            self.prefill_logits, self._caches = model.prefill(
                tokens, positions, text_mask, self._times[: self._made], log_text, spatial_only
            )
        self._step: Step | None = None
        self._slot = shape.frame_len

    @property
    def cache_bytes(self) -> int:
        """Memory of all caches."""
        return sum(cache.nbytes for cache in self._caches)

    def begin_frame(self) -> None:
        """Make room for the next frame of ``times``.

        Raises:
            InputError: the frame before is not complete, or there is none left.
        """
        shape, text = self._shape, self._text_mask.shape[1]
        if self._slot != shape.frame_len or self._made >= len(self._times):
            raise InputError("a frame begins only after the one before is complete, and while there is one left")
        self._caches = [cache.with_room(text, shape.frame_len) for cache in self._caches]
        self._step = self._model.bind(self._caches, self._spatial_only)
        dtype = self._caches[0].spatial_key.dtype
        towards_text = masks.text_bias(self._text_mask, dtype, self._log_text)
        made, F = self._made, shape.frame_len
        rows: dict[bool, tuple[torch.Tensor, torch.Tensor]] = {}
        for shifted in (False, True):
            if shifted and shape.window_size <= 0:
                rows[True] = rows[False]
                continue
            allowed = masks.temporal_mask(shape, self._times[: made + 1], shifted)[made * F :]
            rows[shifted] = _table(towards_text, allowed, dtype), _table(towards_text, allowed[:, made * F :], dtype)
        own = masks.frame_mask(shape, [1])[0]
        self._rows = (_table(towards_text, own, dtype), *rows[False], *rows[True])
        self._slot = 0

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Feed one token ``b`` and get the logits ``b v`` of the next.

        Raises:
            InputError: no frame is under way.
        """
        if self._step is None or self._slot >= self._shape.frame_len:
            raise InputError("no frame is under way: call begin_frame first")
        slot, text = self._slot, self._text_mask.shape[1]
        spatial, temporal, local, temporal_shifted, local_shifted = (table[slot] for table in self._rows)
        device = self._text_mask.device
        logits = self._step(
            token.to(device),
            torch.tensor([self._shape.frame_positions(self._times[self._made])[slot]], device=device),
            torch.tensor([text + slot], device=device),
            torch.tensor([text + self._made * self._shape.frame_len + slot], device=device),
            StepBiases(spatial, temporal, temporal_shifted, local, local_shifted),
        )
        self._slot += 1
        if self._slot == self._shape.frame_len:
            self._made += 1
        return logits


def replay(model: TokenModel, tokens: torch.Tensor, text_mask: torch.Tensor, given: int) -> torch.Tensor:
    """Run a whole sequence token by token, each step fed the sequence's own token (teacher forcing).

    Args:
        model: CogVideo, or its engine.
        tokens: ``b s`` int64, text and frames in the order of time, as ``CogVideo.forward`` takes them.
        text_mask: ``b t``.
        given: so many frames of the storage order go into the prefill.

    Returns:
        Logits ``b (f F) v`` of the other frames, in storage order.
    """
    text, per_frame = text_mask.shape[1], model.shape.frame_len
    frames = tokens[:, text:].unflatten(1, (-1, per_frame))
    times = model.shape.storage_order(frames.shape[1])
    fed = frames[:, times]
    # A frame's slots hold begin-of-image, then its image tokens but the last, which nothing is fed from.
    decoding = Decoding(model, tokens[:, :text], text_mask, fed[:, :given].roll(-1, dims=2), times, int(fed[0, 0, 0]))
    found = []
    with beside_engine(model):
        for frame in range(given, fed.shape[1]):
            decoding.begin_frame()
            found += [decoding.step(fed[:, frame, slot]).clone() for slot in range(per_frame)]
    return torch.stack(found, dim=1)


@contextlib.contextmanager
def beside_engine(model: object) -> Iterator[None]:
    """One thread for PyTorch while an engine generates.

    An engine's own threads keep spinning between steps; a second thread of PyTorch, for an argmax over the vocabulary
    say, would wait for their core longer than the step itself takes.
    """
    if isinstance(model, torch.nn.Module):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def text_positions(text_mask: torch.Tensor) -> torch.Tensor:
    """Position ids ``b t`` of left-padded text: 0 on padding, then 0, 1, 2 …"""
    return (text_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def _table(text_bias: torch.Tensor, allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``F b 1 1 n``: for every slot of the frame under way what it adds to scores, contiguous."""
    slots, batch = allowed.shape[0], text_bias.shape[0]
    frames = masks.as_bias(allowed, dtype).to(text_bias.device)[:, None, None, None].expand(-1, batch, -1, -1, -1)
    return torch.cat([text_bias.expand(slots, -1, -1, -1, -1), frames], dim=-1)
