"""The command line, called in this process."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Outcome:
    """What a command gave back."""

    code: int
    out: str
    err: str


def f3prune(*arguments: object) -> Outcome:
    """Run the command line."""
    from f3prune.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return Outcome(int(stopped.value.code or 0), out.getvalue(), err.getvalue())
