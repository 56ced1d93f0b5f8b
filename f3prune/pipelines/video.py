"""Write and read frames: mp4, gif, a directory of PNG, contact sheets."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from f3prune.core.atomic_files import atomic_directory, atomic_write
from f3prune.core.errors import InputError
from f3prune.core.places import absolute, refuse_to_replace

Frames = npt.NDArray[np.float32]
FPS = 8
COLUMNS, TILE = 8, 96
"""Of a contact sheet: frames side by side, and the height that small ones are enlarged to by a whole factor."""
_PATTERN = re.compile(r"%0?\d*d")


def check_output(path: Path) -> None:
    """Refuse an output name before any work is done.

    Raises:
        InputError: no such kind of output, or its directory cannot be.
    """
    if path.suffix not in {".mp4", ".gif", ".png", ""}:
        raise InputError(f"`output` {path}: expected .mp4, .gif, a .png pattern like frame-%03d.png, or a directory")
    if path.name in {"", ".."}:
        raise InputError(f"`output` {path} has no name of its own: give a file name, or a new directory")
    if path.suffix in {".mp4", ".gif"} and path.is_dir():
        raise InputError(f"`output` {path} is a directory: give a file name that does not exist as one")
    if path.suffix == "" and path.is_file():
        raise InputError(f"`output` {path} is a file: give .mp4, .gif, or a directory for PNG frames")
    if path.suffix == "" and path.is_dir() and any(path.iterdir()):
        raise InputError(
            f"`output` {path} is a directory that is not empty: give a new one, or a file name such as out.mp4"
        )
    refuse_to_replace(absolute(path), folder=path.suffix == "")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"`output` {path}: {parent} is a file, not a directory")


def write_video(frames: Frames, path: Path, fps: int = FPS) -> list[Path]:
    """Write frames ``f h w 3`` (float32 in [0, 1]) as the name of ``path`` asks.

    ``.mp4`` and ``.gif`` are one file; ``.png`` with ``%d`` is one file per frame, without it a contact sheet; a name
    without suffix is a directory of ``frame-000.png`` and so on. Returns the files.

    Raises:
        InputError: no such kind of output, or ffmpeg could not write an mp4 (a full disk); an older file stays.
        OSError: another kind of output could not be written.
    """
    check_output(path)
    pixels = to_bytes(frames)
    if path.suffix == ".mp4":
        with atomic_write(path) as temporary:
            _write_mp4(pixels, temporary, fps)
        return [path]
    if path.suffix == ".gif":
        import imageio.v3 as iio

        with atomic_write(path) as temporary:
            iio.imwrite(temporary, pixels, extension=".gif", duration=1000 / fps, loop=0)
        return [path]
    if path.suffix == ".png":
        return _write_png(pixels, path)
    with atomic_directory(path) as folder:
        for index, frame in enumerate(pixels):
            (folder / f"frame-{index:03d}.png").write_bytes(png_bytes(frame))
    return sorted(path.glob("frame-*.png"))


def _write_png(pixels: npt.NDArray[np.uint8], path: Path) -> list[Path]:
    pattern = _PATTERN.search(path.name)
    if pattern is None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(png_bytes(np.concatenate(list(pixels), axis=1)))
        return [path]
    before, after = path.name[: pattern.start()], path.name[pattern.end() :]
    files = [path.with_name(before + pattern.group() % index + after) for index in range(len(pixels))]
    for file in files:
        refuse_to_replace(absolute(file))
    for file, frame in zip(files, pixels, strict=True):
        with atomic_write(file) as temporary:
            temporary.write_bytes(png_bytes(frame))
    return files


def to_bytes(frames: Frames) -> npt.NDArray[np.uint8]:
    """Pixels in [0, 1] as 8-bit values."""
    return np.rint(np.clip(frames, 0.0, 1.0) * 255.0).astype(np.uint8)


def _write_mp4(pixels: npt.NDArray[np.uint8], path: Path, fps: int) -> None:
    """H.264 in 4:2:0, which every player reads: small frames are enlarged by a whole factor, odd edges repeated."""
    import imageio_ffmpeg

    enlarge = max(1, -(-128 // min(pixels.shape[1:3])))
    pixels = pixels.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    pixels = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2), (0, 0)), mode="edge")
    height, width = pixels.shape[1:3]
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        *("-y", "-nostdin", "-v", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0"),
        *("-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "16", "-movflags", "+faststart"),
        *("-map_metadata", "-1", "-fflags", "+bitexact", f"file:{path}"),
    ]
    try:
        done = subprocess.run(command, input=np.ascontiguousarray(pixels).data, capture_output=True, check=False)
    except OSError as error:
        raise InputError(f"ffmpeg cannot be run ({error}): reinstall imageio-ffmpeg") from error
    # Some write errors, such as those of a full disk, end with a message and exit code 0.
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode or said:
        reason = re.sub(r"^\[[^]]*\] ", "", said[-1])[:160] if said else f"exit code {done.returncode}"
        raise InputError(
            f"the video could not be written to {path.parent.parent} ({reason}): "
            f"free space on its disk, or give an `output` elsewhere"
        )


def png_bytes(image: npt.NDArray[np.uint8]) -> bytes:
    """An image ``h w 3`` as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def contact_sheet(rows: Sequence[tuple[str, Frames]]) -> npt.NDArray[np.uint8]:
    """Videos under each other, a labelled row each, at most ``COLUMNS`` frames side by side.

    Args:
        rows: label and frames ``f h w 3`` in [0, 1].

    Returns:
        An image ``h w 3``, 8 bits.
    """
    from PIL import Image, ImageDraw

    gap, label_height = 4, 16
    factor = max(1, TILE // rows[0][1].shape[1])
    strips: list[Any] = []
    for label, frames in rows:
        chosen = np.linspace(0, len(frames) - 1, min(COLUMNS, len(frames))).round().astype(int)
        tiles = [to_bytes(frames[i]).repeat(factor, axis=0).repeat(factor, axis=1) for i in chosen]
        height, width, _ = tiles[0].shape
        strip = Image.new("RGB", ((width + gap) * len(tiles) + gap, height + label_height + gap), "white")
        ImageDraw.Draw(strip).text((gap, 2), label, fill="black")
        for column, tile in enumerate(tiles):
            strip.paste(Image.fromarray(tile), (gap + column * (width + gap), label_height))
        strips.append(strip)
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return np.asarray(sheet)
