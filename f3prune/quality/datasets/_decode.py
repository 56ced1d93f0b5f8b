"""Frames of a video file, at the size of generated videos. Imports no torch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from f3prune.core.errors import InputError
from f3prune.core.places import absolute
from f3prune.quality._packages import need

Frames = npt.NDArray[np.float32]
Sampling = Literal["contiguous", "even"]


@dataclass(frozen=True)
class RealVideo:
    """A video file and what it shows."""

    prompt: str
    path: Path


def decode(
    video: RealVideo,
    frames: int = 16,
    height: int = 256,
    width: int = 256,
    sampling: Sampling = "contiguous",
    seed: int = 0,
) -> Frames:
    """Some frames of a video, ``f h w 3`` (float32 in [0, 1]).

    Each frame is scaled until it covers the wanted size, by areas where it shrinks and bilinearly where it grows, and
    its middle is cut out.

    Args:
        video: the file.
        frames: how many.
        height, width: in pixels.
        sampling: "contiguous" takes consecutive frames from a random place, as papers do for the Fréchet video
            distance, whose network expects motion at the speed of the file; "even" spreads them over the whole video,
            the first and the last frame included, as for captions that tell of all of it.
        seed: of the place, together with the file's name: other videos start elsewhere, the same one at the same place.

    Raises:
        InputError: the file cannot be decoded or has too few frames, or the PyAV package is missing; names the file.
    """
    if min(frames, height, width) < 1:
        raise InputError(f"cannot decode {frames} frames of {height} x {width} pixels: give at least 1 of each")
    count = _count(video.path)
    if count < frames:
        raise InputError(f"video {video.path} has {count} frames, {frames} are needed: ask for fewer, or leave it out")
    if sampling == "even":
        wanted = np.linspace(0, count - 1, frames).round().astype(int)
    else:
        # Not Python's hash, which differs from process to process.
        draw = np.random.default_rng([seed, zlib.crc32(video.path.name.encode())])
        wanted = np.arange(frames) + int(draw.integers(count - frames + 1))
    found = [_fitted(frame.to_ndarray(format="rgb24"), height, width) for frame in _chosen(video.path, wanted)]
    if len(found) < frames:
        raise InputError(f"video {video.path} is broken: only {len(found)} of {frames} frames decode; leave it out")
    return np.asarray(np.stack(found), dtype=np.float32) / np.float32(255.0)


def _count(path: Path) -> int:
    """Frames by counting packets, without decoding: the number in a file's header is often missing or wrong."""
    av = need("av", "reading real videos")
    try:
        with av.open(str(absolute(path))) as container:
            if not container.streams.video:
                raise InputError(f"video {path} has no picture: leave it out")
            return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    except (av.error.FFmpegError, OSError) as error:
        raise _broken(path, error) from error


def _chosen(path: Path, wanted: npt.NDArray[np.int_]) -> Iterator[Any]:
    """The frames of these ascending numbers; fewer where the file ends or breaks before."""
    av = need("av", "reading real videos")
    indices = set(wanted.tolist())
    try:
        with av.open(str(absolute(path))) as container:
            for index, frame in enumerate(container.decode(container.streams.video[0])):
                if index in indices:
                    yield frame
                if index >= wanted[-1]:
                    return
    except (av.error.FFmpegError, OSError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> InputError:
    if not path.is_file():
        return InputError(f"there is no video {path}: mend the path")
    return InputError(f"video {path} is broken ({type(error).__name__}): leave it out, or copy it again")


def _fitted(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """An image ``h w 3`` scaled to cover the wanted size, its middle cut out."""
    cv2 = need("cv2", "reading real videos")
    factor = max(height / image.shape[0], width / image.shape[1])
    size = (max(width, round(image.shape[1] * factor)), max(height, round(image.shape[0] * factor)))
    if size != (image.shape[1], image.shape[0]):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
