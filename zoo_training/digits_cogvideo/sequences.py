"""Prompts and image tokens laid out as CogVideo reads them: text, then frames that start with begin-of-image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from f3prune.models.cogvideo.config import FIRST_FRAME_POSITION
from f3prune.models.cogvideo.text import PromptTokenizer, WordTokenizer
from f3prune.zoo.digits.dataset import vocabulary

TEXT_LEN = 8
"""Text slots: begin-of-text and the six words of the longest prompt, and one to spare."""


@dataclass(frozen=True)
class Sequences:
    """A batch: `tokens` and `position_ids` are `b s`, `text_mask` is `b t` (1 for text, 0 for padding), all int64."""

    tokens: torch.Tensor
    position_ids: torch.Tensor
    text_mask: torch.Tensor


def build_tokenizer(image_tokens: int) -> WordTokenizer:
    """The words of the prompts, above `image_tokens` image tokens."""
    return WordTokenizer(vocabulary(), image_tokens, TEXT_LEN)


def lay_out(tokenizer: PromptTokenizer, prompts: Sequence[str], video: torch.Tensor) -> Sequences:
    """Sequences of prompts, padded on the left, and of image tokens `b f n` (int64).

    The last token of a frame is no input: slot j of a frame holds its token j - 1, and what comes out there is to be
    token j. So the labels of the slots after the text are `video` itself, flattened.
    """
    texts = [tokenizer.encode(prompt) for prompt in prompts]
    slots = tokenizer.text_len
    text = torch.tensor([[tokenizer.pad] * (slots - len(ids)) + ids for ids in texts])
    mask = torch.tensor([[0] * (slots - len(ids)) + [1] * len(ids) for ids in texts])
    places = torch.tensor([[0] * (slots - len(ids)) + list(range(len(ids))) for ids in texts])
    size, frames, count = video.shape
    starts = torch.full((size, frames, 1), tokenizer.begin_of_image)
    seen = torch.cat([starts, video[:, :, :-1]], dim=2).flatten(1)
    frame_places = FIRST_FRAME_POSITION + torch.arange(frames * count).expand(size, -1)
    return Sequences(torch.cat([text, seen], dim=1), torch.cat([places, frame_places], dim=1), mask)
