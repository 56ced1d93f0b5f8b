"""Run one job in a build worker and follow it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from f3prune.core.errors import BackendError, BuildError
from f3prune.core.processes import python_child

Progress = Callable[[float, str], None]
_ERRORS = {"BuildError": BuildError, "BackendError": BackendError}
_LOG_TAIL = 400


def run_job(job: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Run ``job`` (see ``_worker``) in a process of its own.

    ``progress(fraction, phase)`` is called as the build goes on; an exception from it or an interrupt ends the worker.

    Returns:
        what the worker says of the engine, see ``EngineRecord.built``.

    Raises:
        BuildError: the backend refused the graph, or the worker died.
        BackendError: the backend cannot run here.
    """
    reader, writer = os.pipe()
    command, environment = python_child("f3prune.engines.building._worker", json.dumps({**job, "channel": writer}))
    with tempfile.TemporaryFile() as log, os.fdopen(reader, encoding="utf-8") as messages:
        try:
            worker = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(writer,),
                env=environment,
            )
        finally:
            # The worker holds its own end; ours must close, or reading would never end.
            os.close(writer)
        try:
            outcome = _follow(messages, progress)
            status = worker.wait()
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        if outcome is None:
            log.seek(0)
            tail = " ".join(log.read().decode(errors="replace").split())[-_LOG_TAIL:]
            raise BuildError(
                f"the {job['backend']} build ended with status {status} and no result: {tail or 'no output'}"
            )
    return outcome


def _follow(messages: Any, progress: Progress | None) -> dict[str, Any] | None:
    for line in messages:
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise _ERRORS[message["error"]](message["message"])
        if "built" in message:
            return dict(message["built"])
        if progress is not None:
            progress(float(message["fraction"]), str(message["phase"]))
    return None
