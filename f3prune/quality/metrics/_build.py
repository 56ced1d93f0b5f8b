"""Metrics by name, with the networks that some of them need. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from f3prune.core.errors import InputError
from f3prune.quality.metrics import _networks as networks
from f3prune.quality.metrics._clip import ClipSim
from f3prune.quality.metrics._digits import PromptFollowing
from f3prune.quality.metrics._flow import dynamic_degree, warping_error
from f3prune.quality.metrics._frames import Frames, check_frames
from f3prune.quality.metrics._info import INFO, MetricInfo
from f3prune.quality.metrics._lpips import Lpips
from f3prune.quality.metrics._paired import psnr, ssim


@dataclass(frozen=True)
class PairedMetric:
    """``value(reference, candidate)`` of two videos ``f h w 3``."""

    info: MetricInfo
    value: Callable[[Frames, Frames], float]


@dataclass(frozen=True)
class EachMetric:
    """``value(video, prompt)`` of a video ``f h w 3``; None where it has none."""

    info: MetricInfo
    value: Callable[[Frames, str], float | None]


@dataclass(frozen=True)
class DistanceMetric:
    """``rows(video)``: the features ``r d`` (float64) of a video ``f h w 3``; a Fréchet distance compares sets."""

    info: MetricInfo
    rows: Callable[[Frames], npt.NDArray[np.float64]]


Metric = PairedMetric | EachMetric | DistanceMetric


@dataclass(frozen=True)
class Networks:
    """The networks of metrics that need one: local files, or objects.

    Attributes:
        lpips: weights or a TorchScript file, see ``Lpips``.
        clip: directory of a CLIP model, see ``ClipSim``.
        fvd: a TorchScript file, see ``VideoTorchScript``, or a network.
        fid: a TorchScript file, see ``ImageTorchScript``, or a network of single frames.

    A TorchScript file is code and runs with the user's rights: name only files whose source is trusted.
    """

    lpips: Path | None = None
    clip: Path | None = None
    fvd: Path | networks.FeatureNetwork | None = None
    fid: Path | networks.FeatureNetwork | None = None


_NETWORK_OF = {"lpips": "lpips", "clipsim": "clip", "fvd": "fvd", "fid": "fid"}
_GIVE = {
    "lpips": "torchvision's alexnet-owt-7be5be79.pth, or a TorchScript LPIPS",
    "clip": "the directory of a CLIP model",
    "fvd": "a TorchScript video network such as i3d_torchscript.pt",
    "fid": "a TorchScript image network such as inception-2015-12-05.pt",
}


def build_metrics(names: Sequence[str], given: Networks | None = None) -> list[Metric]:
    """The metrics of these names, in their order, networks loaded.

    Raises:
        InputError: an unknown or repeated name, or a network is missing or cannot be loaded.
    """
    given = given or Networks()
    if len(set(names)) != len(names):
        raise InputError(f"`metrics` {', '.join(names)} name one twice: give each once")
    for name in names:
        if name not in INFO:
            raise InputError(f"there is no metric {name!r}: choose from {', '.join(INFO)}")
        network = _NETWORK_OF.get(name)
        if network is not None and getattr(given, network) is None:
            raise InputError(f"metric {name} needs a network, and none was given: name {_GIVE[network]}")
    following = PromptFollowing()
    return [_build(INFO[name], given, following) for name in names]


def _build(info: MetricInfo, given: Networks, following: PromptFollowing) -> Metric:
    match info.name:
        case "psnr":
            return PairedMetric(info, psnr)
        case "ssim":
            return PairedMetric(info, ssim)
        case "lpips" if given.lpips is not None:
            return PairedMetric(info, Lpips(given.lpips))
        case "flicker":
            return EachMetric(info, lambda video, _: _flicker(video))
        case "warping":
            return EachMetric(info, lambda video, _: warping_error(video))
        case "dynamic":
            return EachMetric(info, lambda video, _: dynamic_degree(video))
        case "clipsim" if given.clip is not None:
            return EachMetric(info, ClipSim(given.clip))
        case "prompt_digit":
            return EachMetric(info, following.digit)
        case "prompt_motion":
            return EachMetric(info, following.motion)
        case "fvd" if given.fvd is not None:
            network = networks.VideoTorchScript(given.fvd) if isinstance(given.fvd, Path) else given.fvd
            return DistanceMetric(info, partial(networks.video_rows, network))
        case "fid" if given.fid is not None:
            network = networks.ImageTorchScript(given.fid) if isinstance(given.fid, Path) else given.fid
            return DistanceMetric(info, partial(networks.frame_rows, network))
    raise InputError(f"metric {info.name} needs a network, and none was given")


def _flicker(video: Frames) -> float | None:
    """Mean absolute change of a pixel from frame to frame; None for a single frame, which cannot flicker."""
    from f3prune.pipelines import fidelity

    return fidelity.flicker(check_frames(video)) if len(video) > 1 else None
