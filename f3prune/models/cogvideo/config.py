"""Hyperparameters of CogVideo."""

from __future__ import annotations

import math
from dataclasses import dataclass

from f3prune.core.errors import InputError

FIRST_FRAME_POSITION = 512
"""Position id of the first slot of time-frame 0, whatever the text's length."""


@dataclass(frozen=True)
class CogVideoConfig:
    """Shape of a CogVideo transformer (Hong et al. 2022, section 3).

    Attributes:
        num_layers, hidden_size, num_attention_heads, vocab_size: as everywhere.
        text_len: T, text slots of a training sequence; inference may use fewer.
        frame_len: F, tokens per frame, a square number.
        frame_num: N, frames of a training sequence.
        stage: 1 predicts frame after frame; 2 interpolates: frames 1 and 3 between the given 0, 2 and 4.
        window_size: edge of the temporal channel's spatial windows in tokens, even; -1 for the whole frame.
        max_sequence_length: rows of the position table for text and frame 0.
        additional_seqlen: rows of the position table for frames from 1 on.
    """

    num_layers: int = 48
    hidden_size: int = 3072
    num_attention_heads: int = 48
    vocab_size: int = 150010
    text_len: int = 64
    frame_len: int = 400
    frame_num: int = 5
    stage: int = 1
    window_size: int = -1
    max_sequence_length: int = 1024
    additional_seqlen: int = 2000

    def __post_init__(self) -> None:
        for name, least in (("num_layers", 1), ("num_attention_heads", 1), ("text_len", 1), ("frame_num", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} does not divide into {self.num_attention_heads} heads: "
                f"choose a multiple"
            )
        if self.frame_len < 1 or math.isqrt(self.frame_len) ** 2 != self.frame_len:
            raise InputError(f"frame_len is {self.frame_len}, expected a square number of tokens such as 400")
        if self.stage not in {1, 2}:
            raise InputError(f"stage is {self.stage}, expected 1 (frame after frame) or 2 (interpolation)")
        window, side = self.window_size, self.frame_side
        # The original's cached steps take a shift of w // 2 for half a window, which only an even w has.
        if window != -1 and (window < 2 or window % 2 or side % window):
            raise InputError(
                f"window_size is {window}, expected -1 (no windows) or an even divisor of the frame's side {side}"
            )
        if self.max_sequence_length < FIRST_FRAME_POSITION + self.frame_len:
            raise InputError(
                f"max_sequence_length is {self.max_sequence_length}, expected at least "
                f"{FIRST_FRAME_POSITION + self.frame_len}: position ids of frame 0 start at {FIRST_FRAME_POSITION}"
            )
        if self.additional_seqlen < (self.frame_num - 1) * self.frame_len:
            raise InputError(
                f"additional_seqlen is {self.additional_seqlen}, expected at least "
                f"{(self.frame_num - 1) * self.frame_len} for {self.frame_num} frames of {self.frame_len} tokens"
            )

    @property
    def frame_side(self) -> int:
        """R: a frame is R x R tokens."""
        return math.isqrt(self.frame_len)

    @property
    def head_dim(self) -> int:
        """Channels per head."""
        return self.hidden_size // self.num_attention_heads

    def shifted(self, layer: int) -> bool:
        """Whether the windows of ``layer`` are shifted by half a window: every second layer's are."""
        return self.window_size > 0 and layer % 2 == 1

    def storage_order(self, frames: int) -> list[int]:
        """Time index of every frame in the order in which generation stores them: stage 2's given ones come first."""
        order = list(range(frames))
        return order if self.stage == 1 else order[::2] + order[1::2]

    def frame_positions(self, time: int) -> range:
        """Position ids of time-frame ``time``."""
        first = FIRST_FRAME_POSITION + time * self.frame_len
        return range(first, first + self.frame_len)


PUBLISHED = {
    "cogvideo-stage1": CogVideoConfig(),
    "cogvideo-stage2": CogVideoConfig(stage=2, window_size=10),
}
"""Hyperparameters of the published checkpoints, by name."""
