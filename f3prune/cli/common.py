"""What the commands have in common: opening and locking a run, reading options into dataclasses."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from f3prune.core.errors import InputError
from f3prune.core.progress import Reporter, RichReporter
from f3prune.core.run_directory import LOCK, RunDirectory

if TYPE_CHECKING:
    from f3prune.calibration import PruneConfig
    from f3prune.engines import BuildConfig
    from f3prune.exporter import ExportConfig
    from f3prune.pipelines.pipeline_runs import GenerationSettings
    from f3prune.quality.judging import JudgeOptions

SETTINGS = ("steps", "guidance", "height", "width", "num_frames", "seed", "latents")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[RunDirectory, Reporter]]:
    """An existing run, locked, with a progress display."""
    directory = RunDirectory.open(path)
    with directory.lock(), RichReporter() as reporter:
        yield directory, reporter


@contextlib.contextmanager
def written(path: Path) -> Iterator[tuple[RunDirectory, Reporter]]:
    """A run to write to, locked, with a progress display. A new directory is removed again if nothing came of it."""
    existed = path.exists()
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    directory = RunDirectory.create(path)
    try:
        with directory.lock(), RichReporter() as reporter:
            yield directory, reporter
    except BaseException:
        if not existed and {entry.name for entry in path.iterdir()} <= {LOCK}:
            shutil.rmtree(path, ignore_errors=True)
            for parent in missing:
                with contextlib.suppress(OSError):
                    parent.rmdir()
        raise


def settings_from(values: Mapping[str, Any]) -> GenerationSettings:
    """The generation settings among a command's options."""
    from f3prune.pipelines.pipeline_runs import GenerationSettings

    return GenerationSettings(**{name: values[name] for name in SETTINGS if name in values})


def prune_config(values: Mapping[str, Any]) -> PruneConfig:
    """The pruning options of a command.

    Raises:
        InputError: two options that exclude each other.
    """
    check_pruning(values)
    from f3prune.calibration import PruneConfig, default_score
    from f3prune.calibration.replacements import replacement_of

    names = ("granularity", "aggregate", "speedup", "candidates", "stages", "protect", "score_seed")
    score = values["score"] or default_score(values["granularity"])
    mode = values["mode"]
    if mode != "auto":
        mode = replacement_of(mode, window=values["window"], pool=values["pool"]).spec
    return PruneConfig(values["alpha"] or 0.0, mode=mode, score=score, **{name: values[name] for name in names})


def check_pruning(values: Mapping[str, Any]) -> None:
    """Refuse combinations of pruning options before any work is done.

    Raises:
        InputError: two options that exclude each other.
    """
    if values["alpha"] == "auto":
        raise InputError(
            "--alpha auto judges videos: calibrate first, then `f3prune prune RUN --alpha auto --budget …`"
        )
    if values["alpha"] is None and values["speedup"] is None:
        raise click.UsageError("Missing option '--alpha'.")
    if values["alpha"] is not None and values["speedup"] is not None:
        raise InputError("--speedup takes the place of --alpha: give one of them")
    if values["speedup"] is not None and values["mode"] != "auto":
        raise InputError(f"--speedup is for --mode auto, not {values['mode']}: leave it out, or use --mode auto")
    if values["mode"] == "auto" and (values["window"] or values["pool"]):
        raise InputError("--mode auto chooses windows and patches itself: leave --window and --pool out")
    if values["granularity"] == "layer" and values["aggregate"] == "layers":
        raise InputError(
            "--aggregate layers makes all sites share one mask and has no meaning with --granularity layer: "
            "use --granularity head or frame-pair, or --aggregate timesteps"
        )
    if values["granularity"] == "frame-pair" and values["mode"] != "local":
        raise InputError(
            f"--mode {values['mode']} takes the place of whole heads and has no meaning with --granularity frame-pair: "
            "use --mode local, or --granularity layer or head"
        )


def export_config(dtype: str, opset: int | None, dynamic: tuple[str, ...] | None) -> ExportConfig:
    """The export options of a command; what was not given is the exporter's own default."""
    from f3prune.exporter import ExportConfig

    given: dict[str, Any] = {"dtype": dtype, "opset": opset, "dynamic": dynamic}
    return ExportConfig(**{name: value for name, value in given.items() if value is not None})


def build_config(backend: str, capabilities: tuple[str, ...]) -> BuildConfig:
    """The build options of a command.

    Raises:
        InputError: compute capabilities for a backend that does not compile ahead of time.
    """
    from f3prune.engines import BuildConfig

    return BuildConfig(backend=backend, compute_capabilities=capabilities)  # type: ignore[arg-type]


def judge_options(values: Mapping[str, Any]) -> JudgeOptions:
    """The judging options of a command.

    Raises:
        InputError: a file that was named does not exist, or options that do not fit together.
    """
    for name in ("root", "captions", "lpips", "clip", "fvd", "fid"):
        path = values.get(name)
        if path is not None and not path.exists():
            raise InputError(f"--{name} {path} does not exist: give a path that does")
    from f3prune.quality.judging import JudgeOptions

    return JudgeOptions(**values)
