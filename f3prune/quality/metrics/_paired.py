"""How near a video is to the dense model's: PSNR and SSIM. Imports torch only when SSIM is asked for."""

from __future__ import annotations

from f3prune.bench.equal_quality import CAP_DB
from f3prune.core.psnr import psnr as unbounded_psnr
from f3prune.quality._packages import need
from f3prune.quality.metrics._frames import Frames, check_pair

_SSIM_WINDOW = 11


def psnr(reference: Frames, candidate: Frames) -> float:
    """Peak signal-to-noise ratio in dB of two videos ``f h w 3``, over all frames at once, at most 60 dB.

    The PSNR of equal videos is infinite, and one such pair would make a mean infinite. From 60 dB on all videos count
    as equal: their difference is below the rounding of 8-bit video, which is 58.9 dB (an error uniform within half a
    level of 255).

    Raises:
        InputError: shapes differ, or not videos.
    """
    check_pair(reference, candidate)
    return min(unbounded_psnr(reference, candidate), CAP_DB)


def ssim(reference: Frames, candidate: Frames) -> float:
    """Structural similarity of two videos ``f h w 3``, mean over frames and colours; 1 for equal ones.

    Source:
        Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity: Gaussian windows of
        11 pixels and deviation 1.5, as torchmetrics computes them.

    Raises:
        InputError: shapes differ, not videos, frames below 11 pixels, or torchmetrics is missing.
    """
    check_pair(reference, candidate, least_edge=_SSIM_WINDOW)
    image = need("torchmetrics.functional.image", "ssim")
    import torch

    a, b = (torch.from_numpy(video.transpose(0, 3, 1, 2).copy()).double() for video in (candidate, reference))
    return float(image.structural_similarity_index_measure(a, b, data_range=1.0))
