"""The untrained transformer: its size and its initialisation; and how its attention is computed in training."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from f3prune.models.cogvideo import CogVideo, CogVideoConfig
from f3prune.models.cogvideo.config import FIRST_FRAME_POSITION
from zoo_training.digits_cogvideo.sequences import TEXT_LEN

FRAMES = 5
"""Frames of a clip."""
LAYERS, WIDTH, HEADS = 6, 160, 5


def build_transformer(vocab_size: int, frame_len: int) -> CogVideo:
    """An untrained transformer for clips of `FRAMES` frames of `frame_len` tokens."""
    model = CogVideo(
        CogVideoConfig(
            num_layers=LAYERS,
            hidden_size=WIDTH,
            num_attention_heads=HEADS,
            vocab_size=vocab_size,
            text_len=TEXT_LEN,
            frame_len=frame_len,
            frame_num=FRAMES,
            stage=1,
            window_size=-1,
            max_sequence_length=FIRST_FRAME_POSITION + frame_len,
            additional_seqlen=(FRAMES - 1) * frame_len,
        )
    )
    _initialise(model)
    return model


@torch.no_grad()
def _initialise(model: CogVideo) -> None:
    """Positions that say time, row and column from the start, and layers that begin as small corrections."""
    shape = model.shape
    side, width = shape.frame_side, shape.hidden_size
    torch.nn.init.normal_(model.word_embeddings.weight, std=0.05)
    times, rows, columns = (torch.randn(count, width) * 0.03 for count in (shape.frame_num, side, side))
    places = times[:, None, None] + rows[:, None] + columns  # time row column width
    flat = places.flatten(0, 2)
    model.position_embeddings.weight[FIRST_FRAME_POSITION:] = flat[: shape.frame_len]
    model.frame_position_embeddings.weight[: len(flat) - shape.frame_len] = flat[shape.frame_len :]
    for name, parameter in model.named_parameters():
        # Norms that close a branch would otherwise drown the embeddings, which are twenty times smaller.
        if name.endswith(("attention_norm_out.weight", "mlp_norm_out.weight")):
            parameter.fill_(0.1)


class Float32Attention(TorchFunctionMode):
    """Keeps attention in float32 under autocast: its bfloat16 gradient is several times slower on processors."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return func(*(tensor.float() for tensor in args), **(kwargs or {}))
