"""Networks whose features Fréchet distances compare. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from f3prune.core.errors import InputError
from f3prune.quality.metrics._frames import Frames, check_frames
from f3prune.quality.metrics._torchscript import accepts, call, load_torchscript

Array = npt.NDArray[np.float64]
_I3D_EDGE = 224


class FeatureNetwork(Protocol):
    """Turns videos into vectors. A network of single images is given videos of one frame."""

    def features(self, videos: npt.NDArray[np.float32]) -> Array:
        """Videos ``b f h w 3`` (float32 in [0, 1]) to features ``b d`` (float64)."""
        ...


class VideoTorchScript:
    """A video network from a TorchScript file, for the Fréchet video distance.

    A network whose ``forward`` takes ``return_features`` is taken for the published I3D (``i3d_torchscript.pt``,
    Kinetics-400): its input is resized to a short edge of 224 pixels and cropped in the middle, and it is called with
    ``rescale=False, resize=False, return_features=True`` for features ``b 400``. Any other is called with the videos
    alone, at their own size. Both get ``b 3 f h w`` (float32 in [-1, 1]).

    Source:
        Unterthiner et al. 2018, Towards Accurate Generative Models of Video, arXiv 1812.01717; the call is that of
        Skorokhodov et al. 2021, StyleGAN-V, arXiv 2112.14683, ``src/metrics/frechet_video_distance.py``.

    Args:
        path: the file. It is code and is run: see ``load_torchscript``.

    Raises:
        InputError: no such file, or not TorchScript.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._module = load_torchscript(path, "fvd")
        self._published = accepts(self._module, "return_features")

    def features(self, videos: npt.NDArray[np.float32]) -> Array:
        """Videos ``b f h w 3`` (float32 in [0, 1]) to features ``b d`` (float64).

        Raises:
            InputError: the network does not take videos of this shape, or does not return ``b d``.
        """
        import torch

        batch = torch.from_numpy(videos.transpose(0, 1, 4, 2, 3).copy())
        if self._published:
            batch = _resized(batch)
        batch = batch.permute(0, 2, 1, 3, 4).contiguous() * 2.0 - 1.0
        options = {"rescale": False, "resize": False, "return_features": True} if self._published else {}
        found = call(lambda: self._module(batch, **options), self._path, "fvd", tuple(batch.shape))
        return _checked(found.double().numpy(), len(videos), f"fvd: {self._path}")


class ImageTorchScript:
    """An image network from a TorchScript file, for the Fréchet image distance over frames.

    Called with ``b 3 h w`` (uint8), and ``return_features=True`` where its ``forward`` takes that, as the published
    Inception of StyleGAN does (``inception-2015-12-05.pt``, which resizes by itself, features ``b 2048``).

    Source:
        Heusel et al. 2017, arXiv 1706.08500; the call is that of Karras et al. 2020, arXiv 2006.06676 (StyleGAN2-ADA),
        ``metrics/frechet_inception_distance.py``.

    Args:
        path: the file. It is code and is run: see ``load_torchscript``.

    Raises:
        InputError: no such file, or not TorchScript.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._module = load_torchscript(path, "fid")
        self._options = {"return_features": True} if accepts(self._module, "return_features") else {}

    def features(self, videos: npt.NDArray[np.float32]) -> Array:
        """Videos of one frame ``b 1 h w 3`` (float32 in [0, 1]) to features ``b d`` (float64).

        Raises:
            InputError: the network does not take images of this shape, or does not return ``b d``.
        """
        import torch

        from f3prune.pipelines.video import to_bytes

        batch = torch.from_numpy(to_bytes(videos[:, 0]).transpose(0, 3, 1, 2).copy())
        found = call(lambda: self._module(batch, **self._options), self._path, "fid", tuple(batch.shape))
        return _checked(found.double().numpy(), len(videos), f"fid: {self._path}")


def video_rows(network: FeatureNetwork, video: Frames) -> Array:
    """Features ``1 d`` of one video ``f h w 3``."""
    return _checked(network.features(check_frames(video)[None]), 1, f"fvd: {type(network).__name__}")


def frame_rows(network: FeatureNetwork, video: Frames) -> Array:
    """Features ``f d`` of the frames of one video ``f h w 3``."""
    return _checked(network.features(check_frames(video)[:, None]), len(video), f"fid: {type(network).__name__}")


def _checked(found: npt.NDArray[Any], count: int, where: str) -> Array:
    if found.ndim != 2 or len(found) != count:
        raise InputError(f"{where} returns features of shape {found.shape}: expected {count} d, one vector per input")
    return np.asarray(found, dtype=np.float64)


def _resized(frames: Any) -> Any:
    """Frames ``b f 3 h w`` with a short edge of 224 pixels, the middle square of them."""
    from torch.nn.functional import interpolate

    batch, count, _, height, width = frames.shape
    factor = _I3D_EDGE / min(height, width)
    size = (max(_I3D_EDGE, round(height * factor)), max(_I3D_EDGE, round(width * factor)))
    large = interpolate(frames.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - _I3D_EDGE) // 2, (size[1] - _I3D_EDGE) // 2
    cropped = large[:, :, top : top + _I3D_EDGE, left : left + _I3D_EDGE]
    return cropped.unflatten(0, (batch, count)).clamp(0.0, 1.0)
