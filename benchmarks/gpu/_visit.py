"""What every visit to a GPU machine shares: its clock, results on disk as they come, parts in processes of their own.

A visit is short and may be cut off at any moment. Every result is a line of a file, written the moment it exists; parts
run one after another, the most valuable first, each in its own process, so that a crash of a library costs one part.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LONGEST_ERROR = 600


@dataclass(frozen=True)
class Visit:
    """One part's view of the visit.

    Attributes:
        part: its name.
        rows: the file of results, JSON lines.
        ends: when the part must be over, in seconds of ``time.time``.
        rehearse: on the CPU, with tiny shapes.
        graphs: folder of exported graphs, made where they are missing.
    """

    part: str
    rows: Path
    ends: float
    rehearse: bool
    graphs: Path

    @property
    def device(self) -> str:
        """Where tensors live."""
        return "cpu" if self.rehearse else "cuda"

    @property
    def left(self) -> float:
        """Seconds until the part must be over."""
        return self.ends - time.time()

    def write(self, name: str, **values: Any) -> None:
        """Put one result on disk and on the screen."""
        line = json.dumps({"part": self.part, "name": name, **values})
        with open(self.rows, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        print(line, flush=True)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Do something that may be refused: the refusal, in its own words, is then the result."""
        try:
            yield
        except Exception as error:  # what is refused here, and how, is what the visit wants to know
            words = " ".join(str(error).split())[:LONGEST_ERROR]
            self.write(name, error=f"{type(error).__name__}: {words}")

    def earlier(self, part: str) -> list[dict[str, Any]]:
        """Results of a part that ran before."""
        return [row for row in read_rows(self.rows) if row["part"] == part]


Part = Callable[[Visit], None]


@dataclass(frozen=True)
class Planned:
    """A part and the most seconds it may take."""

    run: Part
    seconds: float


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All results so far; a line that was cut short is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def run_parts(
    script: Path, parts: Mapping[str, Planned], names: list[str], out: Path, seconds: float, options: list[str]
) -> None:
    """Run parts in turn, each in a process of its own that is killed at its limit.

    Args:
        script: that runs one part when called with ``--run-part``.
        parts: all of the visit's, by name.
        names: those to run, in order.
        out: folder of the results.
        seconds: for all of them.
        options: handed on.
    """
    ends = time.time() + seconds
    for name in names:
        left = ends - time.time()
        limit = min(parts[name].seconds, left)
        if limit < 5:
            print(f"{name}: left out, {left:.0f} s are left", flush=True)
            continue
        started = time.time()
        command = [sys.executable, str(script), "--run-part", name, "--out", str(out), "--seconds", f"{limit:.0f}"]
        search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": search, "PYTHONUNBUFFERED": "1"}
        try:
            # A part that watches its clock ends in time; one that hangs is killed a little later.
            status = subprocess.run([*command, *options], env=environment, timeout=limit + 10, check=False).returncode
            ended = "done" if status == 0 else f"ended with status {status}"
        except subprocess.TimeoutExpired:
            ended = "killed at its limit"
        spent = time.time() - started
        print(f"{name}: {ended} after {spent:.0f} s", flush=True)
        with open(out / ROWS, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"part": "parts", "name": name, "ended": ended, "seconds": round(spent, 1)}) + "\n")


ROWS = "rows.jsonl"


def by_part(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results by part, in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["part"], []).append({key: value for key, value in row.items() if key != "part"})
    return found
