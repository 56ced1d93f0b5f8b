"""What one layer remembers while frames are generated token by token."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch


@dataclass
class LayerCache:
    """Keys and values of one layer; ``None`` where its channel has no such heads.

    Attributes:
        spatial_key, spatial_value: ``b h (t + F) d``: text, then the slots of the frame under way.
        temporal_key, temporal_value: ``b h (t + k F) d`` of the dense temporal heads: text, then every frame so far,
            the one under way last.
        local_key, local_value: ``b h (t + F) d`` of the frame-local temporal heads: no earlier frame is kept.
    """

    spatial_key: torch.Tensor
    spatial_value: torch.Tensor
    temporal_key: torch.Tensor | None = None
    temporal_value: torch.Tensor | None = None
    local_key: torch.Tensor | None = None
    local_value: torch.Tensor | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """What there is, by name."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def with_room(self, text: int, frame_len: int) -> LayerCache:
        """A copy with empty slots for one more frame: temporal heads keep what they have, the others only the text."""
        grown = {}
        for name, tensor in self.tensors().items():
            kept = tensor if name.startswith("temporal") else tensor[:, :, :text]
            b, h, slots, d = kept.shape
            room = tensor.new_zeros(b, h, slots + frame_len, d)
            room[:, :, :slots] = kept
            grown[name] = room
        return LayerCache(**grown)


def write(cache: torch.Tensor, new: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
    """Put ``new`` (``b h 1 d``) into ``cache`` (``b h n d``) at ``slot`` (``1``), in place but while a graph is traced.

    The traced graph has the cache as input and output; a runtime that binds both to one buffer copies nothing.
    """
    if torch.compiler.is_exporting():
        index = slot.reshape(1, 1, 1, 1).expand(new.shape)
        return cache.scatter(2, index, new)
    return cache.index_copy_(2, slot, new)
