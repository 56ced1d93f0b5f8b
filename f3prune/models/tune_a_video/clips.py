"""Read some frames of a video file, stretched to the size that a model works in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import torch

from f3prune.core.errors import InputError

_PATIENCE = 600.0
"""Seconds after which a decoder that has not ended is stopped."""


def read_clip(path: Path, frames: int, height: int, width: int, start: int = 0, rate: int = 1) -> torch.Tensor:
    """Frames ``start``, ``start + rate``, … of a video file.

    Args:
        path: anything that ffmpeg decodes.
        frames: how many.
        height, width: in pixels; the picture is stretched, its proportions are not kept.
        start: number of the first frame, from 0.
        rate: take every so manieth frame.

    Returns:
        ``f 3 h w``, float32 in [-1, 1].

    Raises:
        InputError: no such file, not a video, too short, or a size that is no size.
    """
    for name, value, least in (
        ("frames", frames, 1),
        ("height", height, 1),
        ("width", width, 1),
        ("start", start, 0),
        ("rate", rate, 1),
    ):
        if value < least:
            raise InputError(f"{name} is {value}, expected a whole number of at least {least}")
    if not path.is_file():
        raise InputError(f"VIDEO {path} {'is a directory' if path.is_dir() else 'does not exist'}: give a video file")
    data = _decode(path.resolve(), frames, height, width, start, rate)
    size = height * width * 3
    found = len(data) // size
    if found < frames:
        need = start + (frames - 1) * rate + 1
        raise InputError(
            f"VIDEO {path} is too short: {frames} frames from number {start} on, every {rate}, need {need} frames, and "
            f"{found} of them are there: ask for fewer, or a lower start or rate"
        )
    pixels = np.frombuffer(data, dtype=np.uint8, count=frames * size).reshape(frames, height, width, 3)
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1.0).permute(0, 3, 1, 2).contiguous()


def _decode(path: Path, frames: int, height: int, width: int, start: int, rate: int) -> bytes:
    import imageio_ffmpeg

    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        *("-nostdin", "-v", "error"),
        # A playlist in the guise of a video must not fetch anything from elsewhere.
        *("-protocol_whitelist", "file", "-i", f"file:{path}", "-map", "0:v:0"),
        *("-vf", rf"select=gte(n\,{start})*not(mod(n-{start}\,{rate})),scale={width}:{height}:flags=bicubic"),
        *("-fps_mode", "passthrough", "-frames:v", str(frames)),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"VIDEO {path} was not decoded in {_PATIENCE:.0f} s: give a shorter or intact file") from error
    except OSError as error:
        raise InputError(f"ffmpeg cannot be run ({error}): reinstall imageio-ffmpeg") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1][:160] if said else f"exit code {done.returncode}"
        raise InputError(f"VIDEO {path} cannot be decoded ({reason}): give a video file such as an .mp4")
    return done.stdout
