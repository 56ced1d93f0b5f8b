"""A folder of videos and a file of captions: MSR-VTT's JSON, CSV, TSV, or JSON lines. Imports no torch."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from f3prune.core.errors import InputError
from f3prune.core.json_values import parse_json
from f3prune.quality.datasets._decode import RealVideo
from f3prune.quality.datasets._files import draw, videos_under

_KINDS = {".json", ".csv", ".tsv", ".jsonl"}


def captions(
    root: Path, file: Path | None = None, samples: int | None = None, seed: int = 0, subset: bool = False
) -> list[RealVideo]:
    """Videos of a folder with their captions; of several captions of one video, one is drawn.

    Args:
        root: directory of the videos, at any depth.
        file: of captions; None for the only ``.json``, ``.csv``, ``.tsv`` or ``.jsonl`` directly in ``root``. Either
            MSR-VTT's ``{"videos": [{"video_id"}], "sentences": [{"video_id", "caption"}]}``, where ``video_id`` is a
            file name without suffix; or columns (keys) ``file`` and ``caption``, where ``file`` is a path relative to
            ``root``, a file name, or one without suffix.
        samples: how many videos; None for all.
        seed: of the draws of captions and videos.
        subset: allow captions of videos that are not in the folder, as when only a split of MSR-VTT is there.

    Source:
        Xu et al. 2016, MSR-VTT: A Large Video Description Dataset for Bridging Video and Language. One random caption
        for each video is the usual protocol (Wu et al. 2021, GODIVA, arXiv 2104.14806).

    Raises:
        InputError: no such directory or file, no videos, a caption file that cannot be read (names the line), captions
            without a video unless ``subset``, videos without a caption, or fewer videos than ``samples``.
    """
    videos = videos_under(root)
    file = _only_file(root) if file is None else file
    if not file.is_file():
        raise InputError(f"there is no caption file {file}: give a .json, .csv, .tsv or .jsonl file")
    places = _names(root, videos)
    texts: dict[Path, list[str]] = {}
    missing = []
    for name, text in _read(file):
        path = places.get(name)
        if path is None:
            missing.append(name)
        else:
            texts.setdefault(path, []).append(text)
    if missing and (not subset or not texts):
        raise InputError(
            f"{file}: {len(missing)} captions match no video in {root}, the first of {missing[0]!r}: mend the names, "
            "or say that the folder holds a subset"
        )
    bare = [path for path in videos if path not in texts]
    if bare:
        raise InputError(f"{len(bare)} videos have no caption in {file}, the first is {bare[0]}: add them or move them")
    chooser = np.random.default_rng(seed)
    items = [RealVideo(texts[path][int(chooser.integers(len(texts[path])))], path) for path in videos]
    return draw(items, samples, seed, root)


def _only_file(root: Path) -> Path:
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in _KINDS)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{root} should hold one caption file (.json, .csv, .tsv or .jsonl), found {names}: name it")
    return found[0]


def _names(root: Path, videos: list[Path]) -> dict[str, Path]:
    """Every name that a caption may use for a video: its relative path, its file name, that without suffix.

    A short name that two videos share stands for neither.
    """
    places = {path.relative_to(root).as_posix(): path for path in videos}
    short: dict[str, set[Path]] = {}
    for path in videos:
        for name in (path.name, path.stem, path.relative_to(root).with_suffix("").as_posix()):
            short.setdefault(name, set()).add(path)
    return {**{name: next(iter(found)) for name, found in short.items() if len(found) == 1}, **places}


def _read(file: Path) -> list[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"caption file {file} cannot be read ({error}): save it as UTF-8") from error
    kind = file.suffix.lower()
    if kind not in _KINDS:
        raise InputError(f"caption file {file} ends in {file.suffix!r}: give a .json, .csv, .tsv or .jsonl file")
    if kind == ".json":
        found = _msr_vtt(file, text)
    elif kind == ".jsonl":
        found = _json_lines(file, text)
    else:
        found = _table(file, text, "," if kind == ".csv" else "\t")
    if not found:
        raise InputError(f"caption file {file} holds no captions: expected at least one")
    return found


def _msr_vtt(file: Path, text: str) -> list[tuple[str, str]]:
    try:
        return [(str(row["video_id"]), _caption(row["caption"])) for row in parse_json(text)["sentences"]]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f'caption file {file} is not of MSR-VTT ({error!r}): expected {{"sentences": [{{"video_id", "caption"}}]}}'
        ) from error


def _json_lines(file: Path, text: str) -> list[tuple[str, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            found.append((str(row["file"]), _caption(row["caption"])))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f'caption file {file} line {number} ({error!r}): expected {{"file": "…", "caption": "…"}}'
            ) from error
    return found


def _table(file: Path, text: str, delimiter: str) -> list[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found = []
    try:
        if not {"file", "caption"} <= set(rows.fieldnames or ()):
            raise InputError(f"caption file {file} has columns {rows.fieldnames}: expected a first line file, caption")
        for row in rows:
            if None in row or not row["file"] or not row["caption"]:
                raise InputError(
                    f"caption file {file} line {rows.line_num}: expected a file and a caption, quoted if need be"
                )
            found.append((row["file"], row["caption"].strip()))
    except csv.Error as error:
        raise InputError(f"caption file {file} line {rows.line_num} ({error}): mend its quotes") from error
    return found


def _caption(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"caption {value!r}")
    return value.strip()
