"""The CogVideo transformer (Hong et al. 2022, arXiv 2205.15868): training and cached inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.utils import BaseOutput
from torch import nn

from f3prune.core.errors import InputError
from f3prune.models.cogvideo import masks
from f3prune.models.cogvideo.attention import SpatialAttention, TemporalAttention
from f3prune.models.cogvideo.cache import LayerCache
from f3prune.models.cogvideo.config import FIRST_FRAME_POSITION, CogVideoConfig
from f3prune.models.cogvideo.published import translate

EPS = 1e-5


@dataclass
class CogVideoOutput(BaseOutput):  # type: ignore[misc]
    """``sample``: logits ``b s v``."""

    sample: torch.Tensor


@dataclass(frozen=True)
class StepBiases:
    """What one decoding step adds to scores, by layer kind; ``b 1 1 n`` over the slots of the cache it is for.

    Attributes:
        spatial: text and the frame under way.
        temporal, temporal_shifted: text and all frames so far; shifted layers have windows of their own.
        local, local_shifted: text and the frame under way, within windows.
    """

    spatial: torch.Tensor
    temporal: torch.Tensor
    temporal_shifted: torch.Tensor
    local: torch.Tensor
    local_shifted: torch.Tensor


Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, StepBiases], torch.Tensor]
"""``(token, position_id, frame_slot, video_slot, biases) -> logits``, see ``CogVideo.decode_step``."""


class Layer(nn.Module):
    """Two attention channels mixed by a gate, and an MLP, each between two layer norms ("sandwich")."""

    def __init__(self, config: CogVideoConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.attention_norm_in = nn.LayerNorm(width, eps=EPS)
        self.spatial = SpatialAttention(width, heads)
        self.temporal: TemporalAttention | None = TemporalAttention(width, heads, config.head_dim)
        self.gate: nn.Parameter | None = nn.Parameter(torch.zeros(width))
        self.attention_norm_out = nn.LayerNorm(width, eps=EPS)
        self.mlp_norm_in = nn.LayerNorm(width, eps=EPS)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)
        self.mlp_norm_out = nn.LayerNorm(width, eps=EPS)

    def mixed(self, spatial: torch.Tensor, temporal: torch.Tensor) -> torch.Tensor:
        """``g · spatial + (1 - g) · temporal``, g per channel."""
        if self.gate is None:
            raise InputError("this layer has no temporal channel to mix in: it was pruned")
        share = torch.sigmoid(self.gate)
        return share * spatial + (1 - share) * temporal

    def finish(self, hidden: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """Add attention and MLP to the residual stream ``b s c``."""
        hidden = hidden + self.attention_norm_out(attention)
        inner = F.gelu(self.mlp_in(self.mlp_norm_in(hidden)), approximate="tanh")
        return hidden + self.mlp_norm_out(self.mlp_out(inner))

    def drop_temporal(self) -> None:
        """Hand the temporal channel's share to the spatial one: g becomes 1."""
        self.temporal = None
        self.gate = None


class CogVideo(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """CogVideo's transformer. Sequences are ``[text | frame 0 | frame 1 …]``; slot 0 of a frame is begin-of-image, and
    the output at slot j predicts image token j of the same frame.
    """

    config_name = "config.json"

    def __init__(self, config: CogVideoConfig | None = None, **fields: Any) -> None:
        """Give a configuration, or its fields by name.

        Raises:
            InputError: the fields do not fit together.
        """
        super().__init__()
        shape = config or CogVideoConfig(**fields)
        self.register_to_config(**dataclasses.asdict(shape))
        self.shape = shape
        width = shape.hidden_size
        self.word_embeddings = nn.Embedding(shape.vocab_size, width)
        self.position_embeddings = nn.Embedding(shape.max_sequence_length, width)
        self.frame_position_embeddings = nn.Embedding(shape.additional_seqlen, width)
        self.layers = nn.ModuleList([Layer(shape) for _ in range(shape.num_layers)])
        self.final_norm = nn.LayerNorm(width, eps=EPS)
        for table in (self.word_embeddings, self.position_embeddings, self.frame_position_embeddings):
            nn.init.normal_(table.weight, std=0.02)

    @classmethod
    def _get_init_keys(cls, input_class: type) -> set[str]:
        # ConfigMixin reads the names of a configuration off the constructor, which takes them as **fields.
        return {"self", *(field.name for field in dataclasses.fields(CogVideoConfig))}

    def load_published(self, state_dict: Mapping[str, torch.Tensor]) -> CogVideo:
        """Take the parameters of a checkpoint with the published names.

        Raises:
            InputError: tensors are missing, left over or misshapen; the message names them all.
        """
        self.load_state_dict(translate(state_dict, self.shape), strict=True)
        return self

    @property
    def blocks(self) -> list[Layer]:
        """The layers, first to last."""
        return cast("list[Layer]", list(self.layers))

    def embed(self, tokens: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Word and position vectors ``b s c``; ids past frame 0 have a table of their own."""
        limit = FIRST_FRAME_POSITION + self.shape.frame_len
        base = self.position_embeddings(position_ids.clamp(max=limit - 1))
        extra = self.frame_position_embeddings((position_ids - limit).clamp(min=0))
        position = torch.where((position_ids < limit)[..., None], base, extra)
        return self.word_embeddings(tokens) + position

    def logits(self, hidden: torch.Tensor, tokens: int | None = None) -> torch.Tensor:
        """``b s c -> b s v`` through the word embeddings; of the first ``tokens`` of the vocabulary if given."""
        return F.linear(self.final_norm(hidden), self.word_embeddings.weight[:tokens])

    def forward(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        text_mask: torch.Tensor,
        return_dict: bool = False,
    ) -> torch.Tensor | CogVideoOutput:
        """A whole sequence at once, as in training.

        Args:
            tokens: ``b s`` int64.
            position_ids: ``b s`` or ``1 s`` int64.
            text_mask: ``b t``, nonzero for text, 0 for padding; its length says where frames begin.
            return_dict: give an output object instead of the tensor.

        Returns:
            Logits ``b s v``.

        Raises:
            InputError: the sequence does not consist of text and whole frames.
        """
        times = range(self._frames(tokens, text_mask))
        hidden, _ = self._run(tokens, position_ids, text_mask, times, regions_between_given=True)
        found = self.logits(hidden)
        return CogVideoOutput(sample=found) if return_dict else found

    def prefill(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        text_mask: torch.Tensor,
        times: Sequence[int] | None = None,
        log_text: float | torch.Tensor = 0.0,
        spatial_only: bool = False,
    ) -> tuple[torch.Tensor, list[LayerCache]]:
        """Text and the frames that are given, as cached inference starts.

        Args:
            tokens, position_ids, text_mask: see ``forward``; no frames at all is allowed.
            times: time index of every frame in the sequence; 0, 1, … by default, 0, 2, 4 for stage 2.
            log_text: raises attention to text in the spatial channel, as the original does here.
            spatial_only: leave the temporal channel out (``enforce_no_swin``): CogView2, which draws frame 0.

        Returns:
            Logits ``b s v`` and the cache of every layer, without room for further slots.

        Raises:
            InputError: see ``forward``.
        """
        frames = self._frames(tokens, text_mask)
        order = list(times) if times is not None else list(range(frames))
        if len(order) != frames:
            raise InputError(f"times lists {len(order)} frames, the sequence holds {frames}: give one time for each")
        hidden, caches = self._run(
            tokens, position_ids, text_mask, order, False, log_text, collect=True, spatial_only=spatial_only
        )
        return self.logits(hidden), caches

    def decode_step(
        self,
        token: torch.Tensor,
        position_id: torch.Tensor,
        frame_slot: torch.Tensor,
        video_slot: torch.Tensor,
        biases: StepBiases,
        caches: Sequence[LayerCache],
        spatial_only: bool = False,
        image_tokens: int | None = None,
    ) -> tuple[torch.Tensor, list[LayerCache]]:
        """One token.

        Args:
            token: ``b`` int64.
            position_id: ``1`` int64.
            frame_slot: ``1`` int64, where the token's keys go in the spatial and frame-local caches.
            video_slot: ``1`` int64, likewise in the temporal caches.
            biases: which slots may be attended to.
            caches: with room for the slot (``LayerCache.with_room``); written in place.
            spatial_only: see ``prefill``.
            image_tokens: the first so many tokens are image tokens, the only ones that are ever drawn; None makes the
                logits of all.

        Returns:
            Logits ``b v`` and the caches.
        """
        hidden = self.embed(token[:, None], position_id[None])
        written = []
        for index, (layer, cache) in enumerate(zip(self.blocks, caches, strict=True)):
            normed = layer.attention_norm_in(hidden)
            output, keys, values = layer.spatial.step(
                normed, cache.spatial_key, cache.spatial_value, frame_slot, biases.spatial, spatial_only
            )
            others: dict[str, torch.Tensor] = {}
            if layer.temporal is not None and not spatial_only:
                shifted = self.shape.shifted(index)
                temporal, others = layer.temporal.step(
                    normed,
                    cache.tensors(),
                    video_slot,
                    frame_slot,
                    biases.temporal_shifted if shifted else biases.temporal,
                    biases.local_shifted if shifted else biases.local,
                )
                output = layer.mixed(output, temporal)
            hidden = layer.finish(hidden, output)
            written.append(LayerCache(keys, values, **others))
        return self.logits(hidden, image_tokens)[:, 0], written

    def empty_caches(self, batch: int, frame_slots: int, video_slots: int) -> list[LayerCache]:
        """Caches of zeros: ``frame_slots`` for text and one frame, ``video_slots`` for text and all frames."""
        found = []
        for layer in self.blocks:
            weight, d = layer.spatial.to_out.weight, self.shape.head_dim
            sizes = {"spatial": (layer.spatial.heads, frame_slots)}
            if layer.temporal is not None:
                sizes["temporal"] = (layer.temporal.dense_heads, video_slots)
                sizes["local"] = (layer.temporal.local_heads, frame_slots)
            fields = {
                f"{name}_{kind}": weight.new_zeros(batch, heads, slots, d)
                for name, (heads, slots) in sizes.items()
                for kind in ("key", "value")
                if heads
            }
            found.append(LayerCache(**fields))
        return found

    def bind(self, caches: Sequence[LayerCache], spatial_only: bool = False) -> Step:
        """``decode_step`` on caches that stay where they are; what an engine offers too."""

        def step(
            token: torch.Tensor,
            position_id: torch.Tensor,
            frame_slot: torch.Tensor,
            video_slot: torch.Tensor,
            biases: StepBiases,
        ) -> torch.Tensor:
            with torch.no_grad():
                return self.decode_step(token, position_id, frame_slot, video_slot, biases, caches, spatial_only)[0]

        return step

    def _frames(self, tokens: torch.Tensor, text_mask: torch.Tensor) -> int:
        rest = tokens.shape[1] - text_mask.shape[1]
        if rest < 0 or rest % self.shape.frame_len:
            raise InputError(
                f"a sequence of {tokens.shape[1]} slots with {text_mask.shape[1]} of text leaves {rest} for frames: "
                f"expected a multiple of frame_len {self.shape.frame_len}"
            )
        return rest // self.shape.frame_len

    def _run(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        text_mask: torch.Tensor,
        times: Sequence[int],
        regions_between_given: bool,
        log_text: float | torch.Tensor = 0.0,
        collect: bool = False,
        spatial_only: bool = False,
    ) -> tuple[torch.Tensor, list[LayerCache]]:
        shape, text = self.shape, text_mask.shape[1]
        hidden = self.embed(tokens, position_ids)
        device, dtype = hidden.device, hidden.dtype
        boosted = masks.text_bias(text_mask, dtype, log_text)
        plain = masks.text_bias(text_mask, dtype)
        own = masks.frame_mask(shape, times).to(device) if times else None
        between = {}
        if own is not None and not spatial_only:
            for shifted in {shape.shifted(index) for index in range(len(self.layers))}:
                allowed = masks.temporal_mask(shape, times, shifted, regions_between_given).to(device)
                blocks = allowed.unflatten(0, (len(times), -1)).unflatten(2, (len(times), -1))
                local = torch.stack([blocks[index, :, index] for index in range(len(times))])
                between[shifted] = (masks.as_bias(allowed, dtype), masks.as_bias(local, dtype))
        frame_bias = masks.as_bias(own, dtype) if own is not None else None
        caches = []
        for index, layer in enumerate(self.blocks):
            normed = layer.attention_norm_in(hidden)
            output, key, value = layer.spatial(normed, shape.frame_len, boosted, frame_bias, spatial_only)
            temporal_cache: tuple[torch.Tensor, torch.Tensor] | None = None
            if layer.temporal is not None and not spatial_only:
                if between:
                    bias, local_bias = between[shape.shifted(index)]
                    temporal, *temporal_pair = layer.temporal(normed, shape.frame_len, plain, bias, local_bias)
                    temporal_cache = (temporal_pair[0], temporal_pair[1])
                    mixed = layer.mixed(output[:, text:], temporal)
                    output = torch.cat([output[:, :text], mixed], dim=1)
                else:
                    temporal_cache = layer.temporal.keys_values(normed)
            hidden = layer.finish(hidden, output)
            if collect:
                caches.append(_cache(layer, key, value, temporal_cache, text))
        return hidden, caches


def _cache(
    layer: Layer,
    key: torch.Tensor,
    value: torch.Tensor,
    temporal: tuple[torch.Tensor, torch.Tensor] | None,
    text: int,
) -> LayerCache:
    """What later frames need: of the spatial channel and of frame-local heads that is the text alone."""
    found = LayerCache(key[:, :, :text], value[:, :, :text])
    if temporal is None or layer.temporal is None:
        return found
    dense = layer.temporal.dense_heads
    if dense:
        found.temporal_key, found.temporal_value = (tensor[:, :dense] for tensor in temporal)
    if layer.temporal.local_heads:
        found.local_key, found.local_value = (tensor[:, dense:, :text] for tensor in temporal)
    return found
