"""Whole frames from text: cached decoding, guidance and a sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from f3prune.errors import InputError
from f3prune.models.cogvideo.decoding import Decoding, TokenModel
from f3prune.models.cogvideo.sampling import Sampler

INTERPOLATION_TIMES = (0, 2, 4, 1, 3)
"""Stage 2 stores the frames that are given first, then those between them."""


def generate_tokens(
    model: TokenModel,
    text: Sequence[int],
    given: torch.Tensor,
    times: Sequence[int],
    begin_of_image: int,
    sampler: Sampler,
    guide: Sequence[int] | None = None,
    guidance_scale: float = 1.0,
    log_text: float = 0.0,
    spatial_only: bool = False,
    generator: torch.Generator | None = None,
    on_token: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Draw the frames that ``times`` lists beyond those given.

    With a guide a second sequence with its text and the same frames runs in the same batch, and
    ``guide + scale · (logits - guide)`` is sampled.

    Args:
        model: the model, or its engine.
        text: tokens of the prompt.
        given: ``b k F`` int64 frames to start from, in storage order; every row of the batch gets the same text.
        times: time index of every frame in storage order, given ones first.
        begin_of_image: token of every frame's first slot.
        sampler: turns logits into tokens.
        guide: tokens of the guiding text; None for no guidance.
        guidance_scale: how far to go from the guide's logits.
        log_text: raises attention to text; the guide never has it in its steps.
        spatial_only: without the temporal channel, as CogView2 draws frame 0.
        generator: of the draws.
        on_token: called after every token.

    Returns:
        ``b n F`` int64, all frames in storage order.

    Raises:
        InputError: the text is empty, or the frames do not fit the model.
    """
    texts = [list(text)] if guide is None else [list(text), list(guide)]
    if not all(texts):
        raise InputError("the text has no tokens: give a prompt")
    batch, length = given.shape[0], max(map(len, texts))
    padded = torch.tensor([[0] * (length - len(item)) + item for item in texts]).repeat_interleave(batch, dim=0)
    mask = torch.tensor([[0] * (length - len(item)) + [1] * len(item) for item in texts]).repeat_interleave(
        batch, dim=0
    )
    weight: float | torch.Tensor = log_text
    if guide is not None and log_text:
        weight = torch.tensor([log_text, 0.0]).repeat_interleave(batch)[:, None]
    decoding = Decoding(
        model, padded, mask, given.repeat(len(texts), 1, 1), times, begin_of_image, weight, spatial_only
    )
    frames = [given]
    for _ in range(len(times) - given.shape[1]):
        decoding.begin_frame()
        token = torch.full((batch,), begin_of_image)
        drawn = []
        for _ in range(model.shape.frame_len):
            logits = guided(decoding.step(token.repeat(len(texts))), guidance_scale if guide is not None else None)
            token = sampler(logits, generator)
            drawn.append(token)
            on_token()
        frames.append(torch.stack(drawn, dim=1)[:, None])
    return torch.cat(frames, dim=1)


def guided(logits: torch.Tensor, scale: float | None) -> torch.Tensor:
    """``(2 b) v -> b v``, prompt half first; without a scale the logits as they are."""
    if scale is None:
        return logits
    prompt, guide = logits.chunk(2)
    return guide + scale * (prompt - guide)
