"""Whole frames from text: cached decoding, guidance and a sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from f3prune.core.errors import InputError
from f3prune.models.cogvideo.decoding import Decoding, TokenModel, beside_engine
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
    with beside_engine(model):
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
                # Draws are made on the CPU, so that a seed gives the same clip on every device.
                token = sampler(logits.cpu(), generator)
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


def interpolate_tokens(
    model: TokenModel,
    text: Sequence[int],
    frames: torch.Tensor,
    begin_of_image: int,
    sampler: Sampler,
    log_text: float = 0.0,
    generator: torch.Generator | None = None,
    on_token: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Stage 2: a frame between every two neighbours, ``n`` frames become ``2 n - 1``.

    Every three neighbours in a row are the frames 0, 2 and 4 of a sequence of five, whose frames 1 and 3 are drawn.

    Args:
        model: a stage-2 model, or its engine.
        text: tokens of the prompt, which tells the frame rate wanted.
        frames: ``1 n F`` int64 in the order of time, n odd and at least 3.
        begin_of_image, sampler, log_text, generator, on_token: see ``generate_tokens``.

    Returns:
        ``1 (2 n - 1) F`` int64 in the order of time.

    Raises:
        InputError: the model is of stage 1, or n is even or below 3.
    """
    count = frames.shape[1]
    if model.shape.stage != 2 or count < 3 or count % 2 == 0:
        raise InputError(
            f"interpolation got {count} frames and a stage-{model.shape.stage} model: "
            f"expected an odd number of at least 3 frames and a stage-2 model"
        )
    triples = [frames[:, start : start + 3] for start in range(0, count - 2, 2)]
    found = [triples[0][:, :1]]
    for triple in triples:
        made = generate_tokens(
            model,
            text,
            triple,
            INTERPOLATION_TIMES,
            begin_of_image,
            sampler,
            log_text=log_text,
            generator=generator,
            on_token=on_token,
        )
        in_time = made[:, [INTERPOLATION_TIMES.index(time) for time in range(len(INTERPOLATION_TIMES))]]
        found.append(in_time[:, 1:])
    return torch.cat(found, dim=1)
