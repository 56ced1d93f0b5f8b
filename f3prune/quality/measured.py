"""What was measured on a set of videos, sample by sample, and its two files. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from f3prune.core.atomic_files import atomic_write
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import parse_json
from f3prune.core.places import read_regular
from f3prune.quality.metrics._build import DistanceMetric, EachMetric, Metric, PairedMetric
from f3prune.quality.metrics._info import MetricInfo

Array = npt.NDArray[np.float64]
Frames = npt.NDArray[np.float32]
ARRAYS, META = "measured.safetensors", "measured.json"


@dataclass(frozen=True)
class Measured:
    """Measurements of n videos.

    Attributes:
        info: of every metric by name.
        prompts: ``n``.
        values: of paired metrics and those of each video, ``n`` (float64; NaN where a video has no value).
        features: of distances, ``n r d`` (float64): r vectors of each video.
    """

    info: dict[str, MetricInfo]
    prompts: list[str]
    values: dict[str, Array]
    features: dict[str, Array]

    def save(self, directory: Path) -> list[Path]:
        """Write ``measured.safetensors`` and ``measured.json`` into an existing directory, and return both paths."""
        from safetensors.numpy import save_file

        arrays = {f"values/{name}": value for name, value in self.values.items()}
        arrays |= {f"features/{name}": value for name, value in self.features.items()}
        meta = {
            "version": 1,
            "metrics": {name: info.to_json() for name, info in self.info.items()},
            "prompts": self.prompts,
        }
        with atomic_write(directory / ARRAYS) as temporary:
            save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, temporary)
        with atomic_write(directory / META) as temporary:
            temporary.write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return [directory / ARRAYS, directory / META]

    @classmethod
    def load(cls, directory: Path) -> Measured:
        """The inverse of ``save``.

        Raises:
            ArtifactError: a file is missing or damaged, or the two do not belong together.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            meta = parse_json(read_regular(directory / META))
            info = {name: MetricInfo.from_json(name, value) for name, value in meta["metrics"].items()}
            arrays = load_file(directory / ARRAYS)
            parts: dict[str, dict[str, Array]] = {"values": {}, "features": {}}
            for key, array in arrays.items():
                kind, _, name = key.partition("/")
                parts[kind][name] = array
            found = cls(info, [str(prompt) for prompt in meta["prompts"]], parts["values"], parts["features"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ArtifactError(f"{directory} holds no whole measurement ({error!r}): measure again") from error
        lengths = {len(array) for array in arrays.values()}
        if set(info) != {*found.values, *found.features} or lengths - {len(found.prompts)}:
            raise ArtifactError(f"{META} and {ARRAYS} in {directory} do not belong together: measure again")
        return found


def measure(
    videos: Iterable[Frames],
    prompts: Sequence[str],
    metrics: Sequence[Metric],
    reference: Iterable[Frames] | None = None,
    advance: Callable[[], Any] | None = None,
) -> Measured:
    """Measure videos one at a time; any iterable will do, so that they need not be in memory together.

    Args:
        videos: ``f h w 3`` each, float32 in [0, 1].
        prompts: of each video, in the same order.
        metrics: of ``build_metrics``.
        reference: the dense model's videos for the same prompts and seeds, for paired metrics, which need them.
        advance: called after each video.

    Raises:
        InputError: another number of videos than prompts, no reference for a paired metric, no video that has a value
            for some metric, features of unequal shapes, or what a metric refuses; names the video by its number.
    """
    if not prompts:
        raise InputError("there are no videos to measure: give at least one")
    wanting = [metric.info.name for metric in metrics if isinstance(metric, PairedMetric)]
    if wanting and reference is None:
        raise InputError(f"metric {wanting[0]} compares with the dense model's videos: give them as reference")
    found: dict[str, list[Any]] = {metric.info.name: [] for metric in metrics}
    others = iter(reference) if reference is not None and wanting else None
    count = 0
    for count, video in enumerate(videos, start=1):
        if count > len(prompts):
            raise InputError(f"there are more than {len(prompts)} videos, but {len(prompts)} prompts: give one each")
        other = next(others, None) if others is not None else None
        if others is not None and other is None:
            raise InputError(f"there are {count - 1} reference videos for {len(prompts)} prompts: give one each")
        for metric in metrics:
            try:
                found[metric.info.name].append(_measure_one(metric, video, prompts[count - 1], other))
            except InputError as error:
                raise InputError(f"video {count} of {len(prompts)}: {error}") from error
        if advance is not None:
            advance()
    if count < len(prompts):
        raise InputError(f"there are {count} videos for {len(prompts)} prompts: give one each")
    values: dict[str, Array] = {}
    features: dict[str, Array] = {}
    for metric in metrics:
        name = metric.info.name
        if isinstance(metric, DistanceMetric):
            features[name] = _stacked(name, found[name])
        else:
            values[name] = np.array([np.nan if value is None else value for value in found[name]], dtype=np.float64)
            if np.isnan(values[name]).all():
                raise InputError(f"metric {name} has no value for any of {count} videos or prompts: leave it out")
    return Measured({metric.info.name: metric.info for metric in metrics}, list(prompts), values, features)


def _measure_one(metric: Metric, video: Frames, prompt: str, reference: Frames | None) -> Any:
    if isinstance(metric, EachMetric):
        return metric.value(video, prompt)
    if isinstance(metric, DistanceMetric):
        return metric.rows(video)
    if reference is None:
        raise InputError(f"metric {metric.info.name} needs a reference video")
    return metric.value(reference, video)


def _stacked(name: str, rows: list[Array]) -> Array:
    shapes = sorted({array.shape for array in rows})
    if len(shapes) > 1:
        raise InputError(
            f"{name}: videos have features of shapes {shapes[0]} and {shapes[-1]}: give equal frame counts"
        )
    return np.stack(rows)
