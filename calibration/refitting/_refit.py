"""What a refit is: matrices that are folded into output projections."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from f3prune.calibration.bake.surgery import linear, new_linear
from f3prune.calibration.refitting._dropped import beside, frame_layer
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.weights.safetensors_stream import save_streaming
from f3prune.families import Site, family_of

__all__ = ["FORMAT", "Refit"]

FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Refit:
    """What is folded into output projections.

    Attributes:
        tensors: ``stage/site`` → ``Δ`` with ``c`` as a last row, ``(h d + 1) (h d)`` float32; in CogVideo ``D`` of the
            layer's spatial channel with a constant as a last row, ``(c + 1) c``.
    """

    tensors: Mapping[str, torch.Tensor]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, shapes and values."""
        found = hashlib.sha256()
        for name in sorted(self.tensors):
            found.update(f"{name} {tuple(self.tensors[name].shape)}\n".encode())
            found.update(self.tensors[name].contiguous().numpy().tobytes())
        return found.hexdigest()

    def layers(self, denoiser: nn.Module, site: Site, stage: int) -> Iterator[tuple[str, nn.Linear]]:
        """Output projections of a dense site as they are to be, by name; none where nothing was fitted.

        Lazy weights stay lazy.
        """
        fitted = self.tensors.get(f"{stage}/{site.name}")
        if fitted is None:
            return
        if family_of(denoiser).autoregressive:
            yield frame_layer(denoiser, site, fitted)
            return
        name, start = site.outputs[0]
        layer = linear(denoiser, name)
        weight, stop = layer.weight.detach(), start + site.heads * site.head_dim
        if fitted.shape != (stop - start + 1, stop - start):
            raise InputError(f"the refit of site {site.name} has shape {tuple(fitted.shape)}: it is of another model")
        delta, constant = (beside(weight, tensor) for tensor in (fitted[:-1], fitted[-1]))
        middle = weight[:, start:stop].float()
        changed = (middle + middle @ delta.t()).to(weight.dtype)
        bias: torch.Tensor | None = None
        if layer.bias is not None:
            bias = (layer.bias.detach().float() + torch.mv(middle, constant)).to(weight.dtype)
        yield name, new_linear(torch.cat([weight[:, :start], changed, weight[:, stop:]], dim=1), bias)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        save_streaming(self.tensors, path, {"format": FORMAT, "digest": self.digest})

    @classmethod
    def load(cls, path: Path) -> Refit:
        """Read it back.

        Raises:
            ArtifactError: it is missing, damaged, or of another version.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                facts = file.metadata() or {}
                found = cls({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"cannot read {path} ({error}): run `prune(...)` again") from error
        if facts.get("format") != FORMAT or facts.get("digest") != found.digest:
            raise ArtifactError(f"{path} has another version, or was altered: run `prune(...)` again")
        return found
