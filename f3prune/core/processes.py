"""Python in processes of our own that run nothing from the directory they are started in (CWE-427).

``python -m`` and ``python -c`` put the working directory in front of the search path: a ``json.py`` that lies there
would be run in place of the standard library's.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import f3prune

_SAFE = "PYTHONSAFEPATH"
_START = """
import importlib.util, json, runpy, sys
start = json.loads(sys.argv.pop(1))
sys.path[:] = start["path"]
spec = importlib.util.spec_from_file_location(
    "f3prune", start["package"] + "/__init__.py", submodule_search_locations=[start["package"]]
)
package = sys.modules["f3prune"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
runpy.run_module(start["module"], run_name="__main__", alter_sys=True)
"""
"""Runs a module of the f3prune that the caller runs, wherever else another one is installed."""


def python_child(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run a module of f3prune in a process of its own.

    Ensures:
        Python starts isolated; packages are searched for where this process finds them, but for the working directory
        and relative places. The environment has none of Python's own variables.
    """
    package = str(Path(f3prune.__file__).resolve().parent)
    start = json.dumps({"path": safe_search_path(), "package": package, "module": module})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return [sys.executable, "-I", "-c", _START, start, *arguments], environment


def safe_search_path() -> list[str]:
    """``sys.path`` without the working directory and without what is relative to it."""
    return [place for place in sys.path if os.path.isabs(place) and not _is_working_directory(place)]


def _is_working_directory(place: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(place, os.curdir)
    return False


@contextlib.contextmanager
def safe_path() -> Iterator[None]:
    """Python processes that libraries start (``multiprocessing`` does) leave the working directory out, too."""
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE]
        else:
            os.environ[_SAFE] = before
