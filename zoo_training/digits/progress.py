"""Progress of a training run: a bar on the terminal and one JSON line every few steps in a file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Log:
    """Shows how far a run is and appends `{"seconds": ..., <means of the reported values>}` to `path`."""

    def __init__(self, title: str, path: Path, every: int = 20) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[note]}"))
        self._task = self._progress.add_task(title, total=1.0, note="")
        self._path = path
        self._every = every
        self._pending: list[dict[str, float]] = []
        self._started = time.monotonic()

    def __enter__(self) -> Log:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._progress.start()
        return self

    def report(self, share: float, **values: float) -> None:
        """Notes the values of one step; `share` is the part of the run that is done, 0 to 1."""
        self._pending.append(values)
        if len(self._pending) < self._every:
            return
        means = {name: sum(entry[name] for entry in self._pending) / len(self._pending) for name in values}
        means["step"] = values.get("step", 0.0)
        self._pending = []
        note = " ".join(f"{name} {value:.4g}" for name, value in means.items())
        self._progress.update(self._task, completed=share, note=note)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seconds": round(time.monotonic() - self._started, 1), **means}) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
