"""Videos are written whole, in the form that the name asks for, and read back as what was written."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f3prune.core.errors import InputError
from f3prune.pipelines.video import check_output, contact_sheet, png_bytes, to_bytes, write_video


@pytest.fixture
def frames() -> np.ndarray:
    ramp = np.linspace(0, 1, 16, dtype=np.float32)
    return np.stack([np.stack([np.roll(np.tile(ramp, (16, 1)), shift, axis=1)] * 3, axis=-1) for shift in range(5)])


def decode(file: Path) -> np.ndarray:
    """All frames of a video, ``f h w 3``, 8 bits."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(file), "-f", "rawvideo", "-pix_fmt", "rgb24"]
    done = subprocess.run([*command, "-"], capture_output=True, check=True)
    with closing(imageio_ffmpeg.read_frames(str(file))) as reader:
        width, height = next(reader)["size"]
    return np.frombuffer(done.stdout, dtype=np.uint8).reshape(-1, height, width, 3)


def test_png_frames_are_lossless(tmp_path: Path, frames: np.ndarray) -> None:
    files = write_video(frames, tmp_path / "frames")
    assert [file.name for file in files] == [f"frame-{i:03d}.png" for i in range(5)]
    read = np.stack([iio.imread(file) for file in files])
    np.testing.assert_array_equal(read, to_bytes(frames))


def test_png_pattern(tmp_path: Path, frames: np.ndarray) -> None:
    files = write_video(frames, tmp_path / "f-%02d.png")
    assert [file.name for file in files] == [f"f-{i:02d}.png" for i in range(5)]
    np.testing.assert_array_equal(iio.imread(files[3]), to_bytes(frames)[3])


def test_one_png_is_a_strip(tmp_path: Path, frames: np.ndarray) -> None:
    (file,) = write_video(frames, tmp_path / "strip.png")
    assert iio.imread(file).shape == (16, 80, 3)


def test_gif_has_every_frame(tmp_path: Path, frames: np.ndarray) -> None:
    (file,) = write_video(frames, tmp_path / "a.gif")
    assert iio.imread(file).shape[:3] == (5, 16, 16)


@pytest.mark.parametrize("shape", [(16, 16), (15, 17), (131, 70)])
def test_mp4_has_every_frame_and_keeps_its_brightness(tmp_path: Path, shape: tuple[int, int]) -> None:
    levels = np.linspace(0.1, 0.9, 6, dtype=np.float32)
    frames = np.ones((6, *shape, 3), dtype=np.float32) * levels[:, None, None, None]
    (file,) = write_video(frames, tmp_path / "a.mp4")
    read = decode(file)
    assert len(read) == 6
    assert min(read.shape[1:3]) >= 128
    assert read.shape[1] % 2 == read.shape[2] % 2 == 0
    np.testing.assert_allclose(read.mean(axis=(1, 2, 3)) / 255, levels, atol=0.02)


def test_the_same_frames_give_the_same_file(tmp_path: Path, frames: np.ndarray) -> None:
    files = [write_video(frames, tmp_path / name)[0].read_bytes() for name in ("a.mp4", "b.mp4")]
    assert files[0] == files[1]


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file grows beyond ``limit`` bytes, in this process and its children."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png", "a-%d.png", "a"])
def test_what_cannot_be_written_whole_is_not_written(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).random((5, 64, 64, 3), dtype=np.float32)
    with pytest.raises((InputError, OSError), match=r"could not be written|File too large"), full_disk(2048):
        write_video(noise, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["cat >/dev/null; exit 3", "exit 3", "cat >/dev/null; echo 'No space left' >&2"])
def test_what_ffmpeg_says_is_read(tmp_path: Path, frames: np.ndarray, script: str, monkeypatch: Any) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))
    (tmp_path / "a.mp4").write_text("older")
    with pytest.raises(InputError, match=r"could not be written .*\((exit code 3|No space left)\)"):
        write_video(frames, tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_text() == "older"


@pytest.mark.parametrize("name", ["a.avi", "a.mp4.txt", "a.jpg"])
def test_other_names_are_refused(tmp_path: Path, frames: np.ndarray, name: str) -> None:
    with pytest.raises(InputError, match=r"expected \.mp4"):
        write_video(frames, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("")
    with pytest.raises(InputError, match="is a file"):
        check_output(tmp_path / "d")
    with pytest.raises(InputError, match="not a directory"):
        check_output(tmp_path / "d" / "a.mp4")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-2, 3, width=32), min_size=1, max_size=12))
def test_bytes_are_the_nearest_and_clipped(values: list[float]) -> None:
    pixels = np.array(values, dtype=np.float32).reshape(1, 1, -1, 1).repeat(3, axis=-1)
    found = to_bytes(pixels)[0, 0, :, 0].astype(float)
    np.testing.assert_allclose(found / 255, np.clip(values, 0, 1), atol=0.5 / 255 + 1e-6)


def test_contact_sheet_has_a_row_per_video(frames: np.ndarray) -> None:
    one, two = contact_sheet([("a", frames)]), contact_sheet([("a", frames), ("b", frames)])
    assert two.shape == (2 * one.shape[0], one.shape[1], 3)
    assert png_bytes(two)[:4] == b"\x89PNG"
