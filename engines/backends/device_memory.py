"""Scratch memory of execution contexts: one block on a device, for every stage, expert and shape that runs there.

By default each context has scratch memory of its own, as large as its largest shapes need. Contexts that run one after
another need only one block, as large as the shapes at hand need.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ALIGNMENT = 256
"""Bytes, as TensorRT asks."""


class DeviceArena:
    """A block of memory that grows, on one device.

    Attributes:
        lock: whoever queues work that uses the block holds it.
    """

    def __init__(self, device: torch.device) -> None:
        """Nothing is allocated yet."""
        self.device = device
        self.lock = threading.Lock()
        self._block: torch.Tensor | None = None
        self._done: torch.cuda.Event | None = None

    def block(self, size: int) -> torch.Tensor:
        """The block, uint8, at least ``size`` bytes from an aligned address; another object whenever it has moved.

        To be called with ``lock`` held. What used an earlier block has to be bound to this one before it runs again.
        """
        import torch

        if self._block is None or self._block.numel() < size:
            if self._done is not None:
                self._done.synchronize()
            # The old block goes first: both together may not fit.
            self._block = None
            whole = torch.empty(max(size, ALIGNMENT) + ALIGNMENT, dtype=torch.uint8, device=self.device)
            start = -whole.data_ptr() % ALIGNMENT
            self._block = whole[start : start + max(size, ALIGNMENT)]
        return self._block

    def wait(self, stream: torch.cuda.Stream) -> None:
        """Let ``stream`` go on when the last work that used the block is done."""
        if self._done is not None:
            stream.wait_event(self._done)

    def used_by(self, stream: torch.cuda.Stream) -> None:
        """Say that what was queued on ``stream`` up to now uses the block."""
        import torch

        if self._done is None:
            self._done = torch.cuda.Event()
        self._done.record(stream)


_ARENAS: dict[tuple[str, int], DeviceArena] = {}
_CREATING = threading.Lock()


def arena_of(device: torch.device) -> DeviceArena:
    """The arena of a device: the same for every session of this process."""
    with _CREATING:
        return _ARENAS.setdefault((device.type, device.index or 0), DeviceArena(device))
