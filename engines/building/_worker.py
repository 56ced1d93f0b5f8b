"""The process that builds, started by ``f3prune.core.processes``: a job as JSON in its argument.

TensorRT keeps what it allocates, prints where it likes, and exists in two flavours that cannot share a process; here
it does all that without the caller noticing. Progress, the result or the error go as JSON lines to the file descriptor
that the job names; standard output and error are the log.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from f3prune.core.errors import BackendError, BuildError

_REPORT_EVERY = 0.1


class _Channel:
    """JSON lines to the caller, progress at most ten times a second."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._last = 0.0

    def send(self, message: Mapping[str, Any]) -> None:
        os.write(self._descriptor, (json.dumps(message) + "\n").encode())

    def progress(self, fraction: float, phase: str) -> None:
        now = time.monotonic()
        if now - self._last >= _REPORT_EVERY or fraction >= 1:
            self._last = now
            self.send({"fraction": fraction, "phase": phase})


def main() -> int:
    """Run one job."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    channel = _Channel(int(job["channel"]))
    started = time.monotonic()
    facts: dict[str, Any] = {}
    try:
        if job["backend"] == "onnxruntime":
            from f3prune.engines.backends.onnxruntime import try_graph

            try_graph(Path(job["onnx"]))
        else:
            from f3prune.engines.backends.tensorrt_build import build_plan

            facts = build_plan(job, channel.progress)
    except (BuildError, BackendError) as error:
        channel.send({"error": type(error).__name__, "message": str(error)})
        return 0
    # Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    channel.send({"built": {"seconds": round(time.monotonic() - started, 3), "peak_bytes": peak, **facts}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
