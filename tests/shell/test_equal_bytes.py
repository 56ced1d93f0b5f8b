"""Files of equal content are equal byte for byte, so that measuring again makes nothing stale."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from f3prune.calibration import Calibration, Refit, ScoreTable
from f3prune.calibration.calibration_file import SiteInfo
from f3prune.core.captured_calls import CapturedCall, load_calls, save_calls

MASS = torch.arange(8.0).reshape(1, 2, 2, 2)


def calibration(path: Path) -> None:
    sites = {name: SiteInfo("temporal", 2) for name in ("b.10", "b.2", "a")}
    metadata = {name: name for name in ("model", "settings", "versions", "rows")}
    Calibration("latte", (3.0,), sites, dict.fromkeys(sites, MASS), None, metadata).save(path)


def table(path: Path) -> None:
    ScoreTable("head", (3.0,), dict.fromkeys(("b.10", "b.2", "a"), MASS[0, 0])).save(path)


def calls(path: Path) -> None:
    save_calls([CapturedCall(3.0, {"x": MASS, "more": {"b": 1, "a": (MASS, 2)}})], path)


def fitted(path: Path) -> None:
    Refit({f"0/{name}": MASS[0, 0].T for name in ("b.10", "b.2", "a")}).save(path)


KINDS = (calibration, table, calls, fitted)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each kind of file."""
    for write in KINDS:
        write(folder / write.__name__)
    return {write.__name__: hashlib.sha256((folder / write.__name__).read_bytes()).hexdigest() for write in KINDS}


@pytest.mark.parametrize("write", KINDS)
def test_every_write_gives_the_same_bytes(tmp_path: Path, write: Callable[[Path], None]) -> None:
    found = set()
    for number in range(8):
        write(tmp_path / str(number))
        found.add((tmp_path / str(number)).read_bytes())
    assert len(found) == 1


def test_the_library_does_not(tmp_path: Path) -> None:
    """Why ``save_streaming`` writes these files; one that does may take its place."""
    metadata = {str(number): "" for number in range(8)}
    for number in range(8):
        save_file({"x": MASS}, tmp_path / str(number), metadata)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(8)}) > 1


@pytest.mark.slow(reason="another process loads torch")
def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    code = "import json, sys; from pathlib import Path; from test_equal_bytes import digests\n"
    code += "print(json.dumps(digests(Path(sys.argv[1]))))"
    path = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}\n"
    (tmp_path / "other").mkdir()
    done = subprocess.run([sys.executable, "-c", path + code, tmp_path / "other"], capture_output=True, check=True)
    assert json.loads(done.stdout) == digests(tmp_path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    digests(tmp_path)
    read = Calibration.load(tmp_path / "calibration")
    assert list(read.sites) == ["b.10", "b.2", "a"]
    assert all(torch.equal(mass, MASS) for mass in read.mass.values())
    assert list(ScoreTable.load(tmp_path / "table").values) == ["b.10", "b.2", "a"]
    (call,) = load_calls(tmp_path / "calls")
    assert torch.equal(call.arguments["more"]["a"][0], MASS)
    # A transposed tensor has its values in another order in memory.
    assert torch.equal(load_file(tmp_path / "fitted")["0/a"], MASS[0, 0].T)
    assert Refit.load(tmp_path / "fitted").digest
