"""One progress display for a command. Silent when standard error is not a terminal. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[], None]
"""Moves a bar on by one unit."""


class Reporter:
    """Bars for whoever watches; the base class shows nothing, which is what the Python API uses by default."""

    @contextlib.contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Advance]:
        """A bar of ``total`` units, or a spinner, while the block runs."""
        del description, total
        yield lambda: None

    def note(self, text: str) -> None:
        """A line that stays above the bars."""
        del text

    def show(self, renderable: RenderableType | None) -> None:
        """Put a table or another renderable below the bars in place of the last one; None takes it away."""
        del renderable


SILENT = Reporter()


class _Display(Progress):
    """Bars, and something below them."""

    below: RenderableType | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.below is not None:
            yield self.below


class RichReporter(Reporter):
    """Bars on standard error through rich. Use as a context manager around a whole command."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress = _Display(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> RichReporter:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Advance]:
        """A bar of ``total`` units, or a spinner, while the block runs; finished ones stay with their time."""
        identity = self._progress.add_task(description, total=total)
        try:
            yield lambda: self._progress.advance(identity)
            self._progress.update(identity, total=total or 1, completed=total or 1)
        finally:
            self._progress.stop_task(identity)

    def note(self, text: str) -> None:
        """A line above the bars, on a terminal only."""
        if self._console.is_terminal:
            self._progress.console.print(text, highlight=False)

    def show(self, renderable: RenderableType | None) -> None:
        """Below the bars, on a terminal only."""
        self._progress.below = renderable
        if self._console.is_terminal:
            self._progress.refresh()
