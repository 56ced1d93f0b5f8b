"""Who may attend to whom in CogVideo's two channels: plain boolean and additive masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from f3prune.models.cogvideo.config import CogVideoConfig

FORBIDDEN = -1e4
"""Score of what may not be attended to: its exponential is 0 in every precision, and half precision holds it."""


def frame_mask(config: CogVideoConfig, times: Sequence[int]) -> torch.Tensor:
    """Own-frame part of the spatial channel: causal, but for the frames that stage 2 is given, which see all of it.

    Args:
        config: of the model.
        times: time index of every frame, in the order in which the sequence holds them.

    Returns:
        Boolean ``f q k``, f frames of F query and F key slots.
    """
    slots = torch.arange(config.frame_len)
    causal = slots[:, None] >= slots[None, :]
    return torch.stack([torch.ones_like(causal) if _given(config, time) else causal for time in times])


def temporal_mask(
    config: CogVideoConfig, times: Sequence[int], shifted: bool, regions_between_given: bool = True
) -> torch.Tensor:
    """Frame part of the temporal channel: the order rule, within spatial windows where the model has them.

    Args:
        config: of the model.
        times: see ``frame_mask``.
        shifted: windows shifted by half a window (every second layer).
        regions_between_given: keep opposite borders of a frame apart where a shifted window wraps around. Training
            always does; the original's cached inference does not between the frames that stage 2 is given.

    Returns:
        Boolean ``(f q) (f k)``.
    """
    time = torch.tensor(list(times)).repeat_interleave(config.frame_len)
    slot = torch.arange(config.frame_len).repeat(len(times))
    query_time, key_time, query, key = time[:, None], time[None, :], slot[:, None], slot[None, :]
    same = (query_time == key_time) & (key <= query)
    if config.stage == 1:
        allowed = (key_time < query_time) | same
    else:
        given_query, given_key = query_time % 2 == 0, key_time % 2 == 0
        allowed = given_key | (~given_query & ((key_time < query_time) | same))
    if config.window_size <= 0:
        return allowed
    windows, regions = _windows(config, slot, shifted)
    allowed = allowed & (windows[:, None] == windows[None, :])
    apart = regions[:, None] != regions[None, :]
    if not regions_between_given and config.stage == 2:
        apart = apart & ~((query_time % 2 == 0) & (key_time % 2 == 0))
    return allowed & ~apart


def _windows(config: CogVideoConfig, slot: torch.Tensor, shifted: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Window and region number of every slot; in shifted layers both wrap around the frame's edge."""
    side, window = config.frame_side, config.window_size
    shift = window // 2 if shifted else 0
    row, column = (slot // side - shift) % side, (slot % side - shift) % side
    windows = row // window * (side // window) + column // window
    regions = (row >= side - shift).long() * 2 + (column >= side - shift).long()
    return windows, regions


def _given(config: CogVideoConfig, time: int) -> bool:
    return config.stage == 2 and time % 2 == 0


def text_bias(text_mask: torch.Tensor, dtype: torch.dtype, log_text: float | torch.Tensor = 0.0) -> torch.Tensor:
    """What is added to scores towards text.

    Args:
        text_mask: ``b t``, nonzero for text, 0 for padding.
        dtype: of the result.
        log_text: the original's ``log_text_attention_weights``, one for all or ``b 1``: multiplies the weight of text
            by ``e**log_text``.

    Returns:
        ``b 1 1 t``.
    """
    bias = torch.where(text_mask.bool(), log_text, FORBIDDEN)
    return bias.to(dtype)[:, None, None, :]


def as_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask (true = attend) as scores to add."""
    return torch.where(mask, 0.0, FORBIDDEN).to(dtype)
