"""What lies in the working directory is not run by the processes that f3prune starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from f3prune.core.errors import BuildError
from f3prune.core.processes import python_child, safe_path
from f3prune.engines.building import run_job

ROOT = Path(__file__).parents[2]
STARTS = re.compile(r"subprocess\.(run|Popen|call|check_\w+)|os\.(system|exec\w+|spawn\w+|popen)|get_context\(")
STARTING = {
    "f3prune/engines/building/_worker_call.py",
    "f3prune/models/tune_a_video/clips.py",
    "f3prune/pipelines/video.py",
    "f3prune/quality/pool.py",
}
"""The first starts Python by ``python_child``, the last by ``safe_path``; the others start ffmpeg."""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with modules that leave a mark when they are run."""
    mark = tmp_path / "was-run"
    folder = tmp_path / "downloads"
    (folder / "f3prune").mkdir(parents=True)
    for name in ("json", "numpy", "typing", "signal", "pickle", "sitecustomize", "usercustomize", "f3prune/__init__"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(folder)
    return mark


@pytest.mark.parametrize("search", [None, "", ".", os.pathsep])
def test_a_build_runs_nothing_from_the_working_directory(
    hostile: Path, monkeypatch: pytest.MonkeyPatch, search: str | None
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if search is not None:
        monkeypatch.setenv("PYTHONPATH", search)
    monkeypatch.setattr(sys, "path", ["", os.getcwd(), *sys.path])
    with pytest.raises(BuildError, match=r"absent\.onnx"):
        run_job({"backend": "onnxruntime", "onnx": "absent.onnx"})
    assert not hostile.exists()


def test_a_child_runs_the_f3prune_of_its_parent(hostile: Path) -> None:
    command, environment = python_child("f3prune", "--version")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("f3prune, version ")
    assert not [name for name in environment if name.startswith("PYTHON")]
    assert not hostile.exists()


@pytest.mark.parametrize("safe", [True, False])
def test_a_pool_runs_nothing_from_the_working_directory(hostile: Path, tmp_path: Path, safe: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from contextlib import nullcontext\n"
        "from f3prune.core.processes import safe_path\n"
        "if __name__ == '__main__':\n"
        f"    with {'safe_path' if safe else 'nullcontext'}():\n"
        "        process = multiprocessing.get_context('spawn').Process(target=print)\n"
        "        process.start()\n"
        "        process.join()\n"
        "    raise SystemExit(process.exitcode)\n"
    )
    done = subprocess.run([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    # Without it, multiprocessing does run them: the test would notice.
    assert (done.returncode == 0, hostile.exists()) == (safe, not safe)


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "1", ""):
        if before is None:
            monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        else:
            monkeypatch.setenv("PYTHONSAFEPATH", before)
        with safe_path():
            assert os.environ["PYTHONSAFEPATH"] == "1"
        assert os.environ.get("PYTHONSAFEPATH") == before


def test_no_other_module_starts_a_process() -> None:
    modules = [
        path for folder in ("f3prune", "calibration", "exporter", "engines") for path in (ROOT / folder).rglob("*.py")
    ]
    found = {path for path in modules if STARTS.search(path.read_text(encoding="utf-8"))}
    assert {path.resolve() for path in found} == {(ROOT / name).resolve() for name in STARTING}
