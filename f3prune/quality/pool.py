"""Many masks judged side by side, one process each; what is measured is kept, so that an interruption costs little."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import replace
from functools import cache
from pathlib import Path

from f3prune.bench.contest.sweep import masks_key
from f3prune.calibration import Masks
from f3prune.core.processes import safe_path
from f3prune.core.progress import SILENT, Reporter
from f3prune.core.run_directory import RunDirectory
from f3prune.quality.compare import Measured
from f3prune.quality.judging import JudgeOptions, Judging
from f3prune.quality.variants import Variant
from f3prune.steps._state import RunState


def measure_many(
    judging: Judging, masks: Sequence[Masks], jobs: int | None = None, reporter: Reporter = SILENT
) -> list[Measured]:
    """Each of the masks measured beside the dense model, in PyTorch; videos of pruned models are not kept.

    Args:
        judging: the dense model is measured first, in this process.
        masks: what to measure.
        jobs: worker processes; None takes one per processor of this process.
        reporter: of progress.
    """
    judging.dense("torch")
    keys = [masks_key(chosen) for chosen in masks]
    # Whatever they were chosen by, masks that prune the same are measured once.
    distinct = dict(zip(reversed(keys), reversed(masks), strict=True))
    jobs = min(jobs or len(os.sched_getaffinity(0)), max(len(distinct), 1))
    if jobs > 1:
        _in_workers(judging, list(distinct.values()), jobs, reporter)
    found = {}
    with reporter.task("judging", total=len(distinct)) as advance:
        for key, chosen in distinct.items():
            found[key] = judging.pruned(Variant(chosen), keep=False)
            advance()
    return [found[key] for key in keys]


def _in_workers(judging: Judging, masks: Sequence[Masks], jobs: int, reporter: Reporter) -> None:
    missing = [chosen for chosen in masks if not judging.has(Variant(chosen))]
    if not missing:
        return
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    # Fork would copy the parent's thread pools in whatever state they are in.
    context = multiprocessing.get_context("spawn")
    with (
        safe_path(),
        reporter.task(f"judging in {jobs} processes", total=len(missing)) as advance,
        ProcessPoolExecutor(jobs, context, _start, (threads,)) as pool,
    ):
        place = (judging.state.run.path, judging.state.run.model)
        waiting = {pool.submit(_measure, *place, judging.options, chosen.to_json()) for chosen in missing}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                advance()


def _start(threads: int) -> None:
    import torch

    from f3prune.core.quiet import silence

    silence(False)
    torch.set_num_threads(threads)


def _measure(run: Path, model: str | None, options: JudgeOptions, masks: str) -> None:
    _judging(run, model, replace(options)).pruned(Variant(Masks.from_json(masks)), keep=False)


@cache
def _judging(run: Path, model: str | None, options: JudgeOptions) -> Judging:
    return Judging(RunState.of(RunDirectory.open(run, model)), options)
