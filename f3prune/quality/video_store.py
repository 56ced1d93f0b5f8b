"""Generated videos on disk, lossless, one file per sample: what an interrupted evaluation goes on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from f3prune.core.atomic_files import atomic_write, canonical_json, sha256_file, sha256_text
from f3prune.core.errors import ArtifactError
from f3prune.core.json_values import parse_json
from f3prune.core.places import absolute, read_regular
from f3prune.pipelines.pipeline_runs import Frames
from f3prune.quality._packages import need

INDEX = "videos.json"
VERSION = 1


class VideoStore(Sequence[Frames]):
    """Videos ``f h w 3`` (float32 in [0, 1], stored in 8 bits) of one variant of a model, by number of the sample.

    A folder that was made from anything else than ``recipe`` is emptied; a video counts once its hash is written down,
    and one that was altered since is missing.

    Args:
        folder: where they are.
        count: how many there will be.
        recipe: what they are made from, as JSON values.
    """

    def __init__(self, folder: Path, count: int, recipe: dict[str, Any]) -> None:
        self.folder, self._count = folder, count
        self._recipe = sha256_text(canonical_json({"version": VERSION, **recipe}))
        self._hashes: dict[str, str] = {}
        found = _read_index(folder / INDEX)
        if found is not None and found[0] == self._recipe:
            self._hashes = {name: value for name, value in found[1].items() if _hash(self._path(int(name))) == value}
        elif folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def digest(self) -> str:
        """SHA-256 over what the videos are made from and the videos themselves."""
        return sha256_text(canonical_json([self._recipe, self._hashes]))

    def missing(self) -> list[int]:
        """Numbers of the samples that are not there yet."""
        return [k for k in range(self._count) if f"{k:05}" not in self._hashes]

    def add(self, number: int, frames: Frames) -> None:
        """Keep a video."""
        path = self._path(number)
        with atomic_write(path) as temporary:
            _encode(np.rint(np.clip(frames, 0.0, 1.0) * 255.0).astype(np.uint8), temporary)
        self._hashes[f"{number:05}"] = sha256_file(path)
        index = {"recipe": self._recipe, "videos": dict(sorted(self._hashes.items()))}
        with atomic_write(self.folder / INDEX) as temporary:
            temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    def remove(self) -> None:
        """Delete all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Frames: ...
    @overload
    def __getitem__(self, number: slice) -> list[Frames]: ...
    def __getitem__(self, number: int | slice) -> Frames | list[Frames]:
        """A video, decoded when it is asked for.

        Raises:
            ArtifactError: it is not there, or was altered.
        """
        if isinstance(number, slice):
            return [self[k] for k in range(*number.indices(self._count))]
        if not -self._count <= number < self._count:
            raise IndexError(number)
        number %= self._count
        path = self._path(number)
        if _hash(path) != self._hashes.get(f"{number:05}", ""):
            raise ArtifactError(f"{path} is missing or was altered: run the same command again, which makes it anew")
        return _decode(path).astype(np.float32) / np.float32(255.0)

    def __iter__(self) -> Iterator[Frames]:
        return (self[k] for k in range(self._count))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05}.mkv"


def _hash(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except OSError:
        return None


def _read_index(path: Path) -> tuple[str, dict[str, str]] | None:
    try:
        found = parse_json(read_regular(path))
        return str(found["recipe"]), {str(name): str(value) for name, value in found["videos"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _encode(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    av = need("av", "keeping generated videos")
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = pixels.shape[2], pixels.shape[1], "bgr0"
        for image in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def _decode(path: Path) -> npt.NDArray[np.uint8]:
    av = need("av", "keeping generated videos")
    with av.open(str(absolute(path))) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
