"""LPIPS, from weights or a network that the user names; nothing is downloaded. Imports no torch."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from f3prune.core.errors import InputError
from f3prune.quality._packages import need
from f3prune.quality.metrics._frames import Frames, check_pair
from f3prune.quality.metrics._torchscript import call, load_torchscript

_TAPS = (1, 4, 7, 9, 11)
"""The layers of AlexNet that LPIPS looks at: every rectifier."""
_LEAST_EDGE = 31
"""Pixels; on smaller frames AlexNet's second pooling has nothing left to pool."""


class Lpips:
    """Learned perceptual distance of two videos, mean over frames; 0 for equal ones.

    Args:
        path: one of
            a state dict of torchvision's AlexNet (``alexnet-owt-7be5be79.pth``; ``.pth`` or ``.safetensors``, only
            tensors are unpickled), with which torchmetrics' published linear weights (version 0.1) are used;
            a TorchScript file (``.pt``) that maps two image batches ``b 3 h w`` (float32 in [-1, 1]) to distances of
            ``b`` elements. It is code and is run: see ``load_torchscript``.

    Source:
        Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, arXiv 1801.03924.

    Raises:
        InputError: no such file, not such a file, or torchmetrics is missing.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(
                f"lpips: there is no file {path}: give torchvision's alexnet-owt-7be5be79.pth, or a TorchScript LPIPS"
            )
        self._path = path
        weights = path.suffix in {".pth", ".safetensors"}
        self._network: Callable[..., Any] = _alexnet_distance(path) if weights else load_torchscript(path, "lpips")
        self._least_edge = _LEAST_EDGE if weights else 1

    def __call__(self, reference: Frames, candidate: Frames) -> float:
        """The distance of two videos ``f h w 3``.

        Raises:
            InputError: shapes differ, not videos, frames too small, or the network does not return ``b`` distances.
        """
        import torch

        check_pair(reference, candidate, self._least_edge)
        a, b = (
            torch.from_numpy(v.transpose(0, 3, 1, 2) * np.float32(2) - np.float32(1)) for v in (reference, candidate)
        )
        found = call(lambda: self._network(a.contiguous(), b.contiguous()), self._path, "lpips", tuple(a.shape))
        if found.numel() != len(reference):
            raise InputError(f"lpips: {self._path} returns {tuple(found.shape)} for {len(reference)} pairs: expected b")
        return float(found.double().mean())


def _alexnet_distance(path: Path) -> Callable[[Any, Any], Any]:
    lpips = need("torchmetrics.functional.image.lpips", "lpips")
    import torch
    from torch import nn

    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )
    state = {key.removeprefix("features."): x for key, x in _state(path).items() if key.startswith("features.")}
    try:
        layers.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"lpips: {path} does not hold the weights of torchvision's AlexNet (features.0.weight and so on): "
            "give alexnet-owt-7be5be79.pth, or a TorchScript LPIPS as .pt"
        ) from error
    layers.eval()
    linear = torch.load(
        Path(lpips.__file__).parent / "lpips_models" / "alex.pth", map_location="cpu", weights_only=True
    )
    scaling = lpips.ScalingLayer()

    def distance(a: Any, b: Any) -> Any:
        x, y = scaling(a), scaling(b)
        total = torch.zeros(len(a))
        for index, layer in enumerate(layers):
            x, y = layer(x), layer(y)
            if index in _TAPS:
                # Normalised as Zhang et al.'s eq. 1; the same small number under the root as torchmetrics.
                gap = (_unit(x) - _unit(y)).square()
                weight = linear[f"lin{_TAPS.index(index)}.model.1.weight"]
                total = total + (gap * weight).sum(dim=1).mean(dim=(1, 2))
        return total

    return distance


def _unit(features: Any) -> Any:
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


def _state(path: Path) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"lpips: {path} cannot be read as tensors alone: give a state dict of AlexNet") from error
    if not isinstance(found, dict):
        raise InputError(f"lpips: {path} holds a {type(found).__name__}: give a state dict of AlexNet")
    return found
